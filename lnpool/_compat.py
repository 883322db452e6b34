"""The differences between JAX versions that the library meets, in one place."""

import jax
from jax import Array, lax


def varying_axes(x: Array) -> frozenset[str]:
    """The shard_map axes over which ``x`` differs between devices; empty outside of shard_map."""
    kind = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying  # renamed in jax 0.8


def make_varying(x: Array, axes: frozenset[str]) -> Array:
    """``x`` as a value that may differ over ``axes`` too; JAX transposes the cast to a sum over devices."""
    missing = tuple(sorted(axes - varying_axes(x)))
    if not missing:
        return x
    if hasattr(lax, "pcast"):
        return lax.pcast(x, missing, to="varying")
    return lax.pvary(x, missing)  # type: ignore[attr-defined]  # jax 0.7
