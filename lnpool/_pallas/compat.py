"""The differences between JAX versions and places to run that the kernels meet, in one place."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lnpool import _compat

triton: Any
try:
    from jax.experimental.pallas import triton
except ImportError:
    triton = None


class Target(NamedTuple):
    """For what platform kernels are traced, and how: compiled (False), or interpreted on the host."""

    platform: str
    interpret: Any = False


_LAST: Target | None = None
_TARGET: contextvars.ContextVar[Target | None] = contextvars.ContextVar("lnpool_kernel_target", default=None)


@contextlib.contextmanager
def target(platform: str, interpret: Any = False) -> Iterator[None]:
    """Trace kernels for ``platform`` whatever this machine has: for tests, which interpret or compile without a device.

    ``interpret`` is True or a pltpu.InterpretParams. JAX caches traces by function, not by this context, so that those
    of another target are dropped.
    """
    global _LAST
    new = Target(platform, interpret)
    if new != _LAST:
        jax.clear_caches()
    _LAST = new
    token = _TARGET.set(new)
    try:
        yield
    finally:
        _TARGET.reset(token)


def current_target() -> Target:
    """The target of the context, else this machine."""
    return _TARGET.get() or Target(jax.default_backend())


def no_triton() -> str | None:
    """Why this JAX cannot lower kernels to Triton; None where it can."""
    return (
        None if triton else f"the Pallas kernels for GPU need the Triton lowering, which JAX {jax.__version__} lacks."
    )


def load(ref: Any, index: Any, mask: Array, other: float) -> Array:
    """``ref[index]``, and ``other`` where ``mask`` is False, which is not read."""
    return triton.load(ref.at[index], mask=mask, other=other)


def store(ref: Any, index: Any, x: Array, mask: Array) -> None:
    """``ref[index] = x`` where ``mask`` is True."""
    triton.store(ref.at[index], x, mask=mask)


def in_32_bits() -> contextlib.AbstractContextManager[None]:
    """Trace with 64-bit types off: under jax_enable_x64 a kernel would hold float64 constants, which no TPU has."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(False)
    return jax.experimental.enable_x64(False)  # type: ignore[attr-defined]  # before jax 0.8


def output(shape: tuple[Any, ...], dtype: jnp.dtype, *like: Any) -> jax.ShapeDtypeStruct:
    """An output of a kernel; inside shard_map it varies over the axes over which any of ``like`` varies."""
    axes = frozenset().union(*map(_compat.varying_axes, like))
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    if hasattr(jax.sharding, "ManualAxisType"):
        kind = jax.sharding.ManualAxisType(varying=axes)
        return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind)
    return jax.ShapeDtypeStruct(shape, dtype, vma=axes)  # type: ignore[call-arg]  # before the rename
