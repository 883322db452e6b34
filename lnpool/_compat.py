"""The differences between JAX versions that the library meets, in one place."""

from typing import Any

import jax
from jax import Array, lax


def varying_axes(x: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """The shard_map axes over which ``x`` differs between devices; empty outside of shard_map."""
    kind: Any = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    if hasattr(kind, "vma"):
        return kind.vma or frozenset()  # renamed in jax 0.8
    manual = kind.manual_axis_type
    return frozenset() if manual is None else frozenset(manual.varying)


def make_varying(x: Array, axes: frozenset[str]) -> Array:
    """``x`` as a value that may differ over ``axes`` too; JAX transposes the cast to a sum over devices."""
    missing = tuple(sorted(axes - varying_axes(x)))
    if not missing:
        return x
    if hasattr(lax, "pcast"):
        return lax.pcast(x, missing, to="varying")
    return lax.pvary(x, missing)  # type: ignore[attr-defined]  # jax 0.7


def new(like: jax.ShapeDtypeStruct, shape: tuple[Any, ...], fill: float | None, dtype: Any = None) -> Array:
    """An array of another shape that is cut over devices as ``like`` is; what it holds is of no account for None."""
    dtype = dtype or like.dtype
    if like.sharding is not None:  # a mesh of explicit axes
        x = lax.full(shape, fill or 0, dtype, sharding=like.sharding)
    else:
        x = lax.empty(shape, dtype) if fill is None else lax.full(shape, fill, dtype)
    return make_varying(x, varying_axes(like))


def is_cut(x: Array, axis: int) -> bool:
    """Whether an axis is known to be cut over the devices of a mesh."""
    kind: Any = jax.typeof(x)
    spec = kind.sharding.spec
    return axis < len(spec) and spec[axis] is not None
