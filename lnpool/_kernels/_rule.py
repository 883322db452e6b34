"""The implementation "pallas": kernels where they are accurate, the portable implementation everywhere else.

The choice is made at run time from the exponents, as in ``_xla``, and is the same in the forward and the backward
pass. What a forward pass leaves has the shape of what ``_xla`` leaves: the attention and ``Residuals``.
"""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _bounded, _xla
from lnpool._kernels import _compat, gpu, tpu
from lnpool._kernels._elements import Row, fields, finish, unpacked
from lnpool._rows import over_rows
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, attend

Saved: TypeAlias = tuple[Attention, Residuals]

LARGEST_EXPONENT = 64.0  # of the online form: above it p log(h/r) loses digits that the exact form keeps

_PLATFORMS = {"tpu": tpu, "gpu": gpu}
_ON_CPU = "the Pallas kernels are compiled for TPU and GPU; on other devices only the tests run them, interpreted"


def why_not() -> str | None:
    """Why this machine cannot run the kernels; None where it can."""
    platform = _compat.current_target().platform
    if platform not in _PLATFORMS:
        return f"{_ON_CPU} (the default device here is a {platform})."
    return _compat.no_triton() if platform == "gpu" else None


def unsupported(call: Call, inputs: Inputs) -> str | None:
    """Why the kernels cannot take these inputs; None where they can."""
    if inputs.p.dtype != jnp.float32:
        return f"the Pallas kernels compute in float32, not in {inputs.p.dtype}."
    flat = jax.eval_shape(_flat, inputs.states)
    return _kernels().unsupported(flat, _heads(inputs.scores))


def _kernels() -> ModuleType:
    return _PLATFORMS[_compat.current_target().platform]


def _heads(scores: Array) -> int:
    return scores.shape[2] if scores.ndim == 4 else 1


def _flat(states: Array) -> Array:
    """[B T *H K] as [B T D]."""
    return states.reshape(*states.shape[:2], math.prod(states.shape[2:]))


def _batched(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` over [B ...] arrays, which vmap turns into a bigger batch; Pallas would loop over the lengths."""

    @jax.custom_batching.custom_vmap
    def run(*args: Array) -> Any:
        with _compat.in_32_bits():
            return kernel(*args)

    @run.def_vmap
    def _(size: int, is_batched: list[bool], *args: Array) -> tuple[Any, Any]:
        whole = [
            x if batched else jnp.broadcast_to(x[None], (size, *x.shape))
            for x, batched in zip(args, is_batched, strict=True)
        ]
        out = run(*(x.reshape(-1, *x.shape[2:]) for x in whole))
        out = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return run


def _per_row(shape: tuple[int, ...], x: Array) -> Array:
    """[B|1 1 *H 1|K] as [B D], for states of canonical ``shape``."""
    batch, _, *features = shape
    return jnp.broadcast_to(x, (batch, 1, *features)).reshape(batch, math.prod(features))


def _operands(inputs: Inputs, attention: Attention) -> tuple[Array, Array]:
    """Scores [B H T] with -inf at padding, and lengths [B]."""
    batch, tokens, *_ = inputs.scores.shape
    scores, lengths = attention.scores, jnp.full(batch, tokens, jnp.int32)
    if inputs.mask is not None:
        scores = jnp.where(inputs.mask, scores, -jnp.inf)
        real = inputs.mask.reshape(batch, tokens)
        lengths = jnp.max(jnp.where(real, jnp.arange(1, tokens + 1, dtype=jnp.int32)[None], 0), axis=1)
    return scores.reshape(batch, tokens, _heads(inputs.scores)).transpose(0, 2, 1), lengths


def _applies(call: Call, inputs: Inputs) -> Array:
    """Whether every exponent is in the range where the kernels are as accurate as the exact form."""
    if call.is_bounded:
        fast = _bounded.applies(call, inputs)
        assert fast is not None
        return fast
    return jnp.all((inputs.p >= 1) & (inputs.p <= LARGEST_EXPONENT))


def _choose(
    call: Call, inputs: Inputs, kernel: Callable[..., Any], portable: Callable[..., Any], *operands: Any
) -> Any:
    """``kernel(flat inputs, *operands)`` or ``portable(inputs, *operands)``.

    The states cross the conditional as [B T D], which costs neither the user nor the kernel a copy.
    """
    shape = inputs.states.shape

    def exact(flat: Inputs, *operands: Any) -> Any:
        return portable(flat._replace(states=flat.states.reshape(shape)), *operands)

    return lax.cond(_applies(call, inputs), kernel, exact, inputs._replace(states=_flat(inputs.states)), *operands)


def _pooled(call: Call, shape: tuple[int, ...], slope: bool, inputs: Inputs) -> tuple[Array, Saved]:
    """The pooled states, and what the backward pass needs, by the kernel; ``inputs`` hold flat states."""
    attention = over_rows(functools.partial(attend, call), inputs)
    scores, lengths = _operands(inputs, attention)
    row = Row(_per_row(shape, inputs.p[None]), _per_row(shape, attention.log_z))
    run = _batched(functools.partial(_kernels().sums, call, slope, inputs.mask is not None))
    summed = run(inputs.states, scores, lengths, jnp.stack(row, axis=1))
    sums = unpacked(fields(call, slope), jnp.unstack(summed, axis=1))
    residuals = finish(call, row, sums, _per_row(shape, attention.mean_z))
    residuals = Residuals(*(x.reshape(shape[0], 1, *shape[2:]) for x in residuals))
    return residuals.value.astype(inputs.states.dtype), (attention, residuals)


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""

    def kernel(flat: Inputs) -> Array:
        return _pooled(call, inputs.states.shape, False, flat)[0]

    return _choose(call, inputs, kernel, functools.partial(_xla.value, call))


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""
    kernel = functools.partial(_pooled, call, inputs.states.shape, True)
    return _choose(call, inputs, kernel, functools.partial(_xla.forward, call))


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    shape, like = inputs.states.shape, inputs.scores

    def kernel(flat: Inputs, saved: Saved, g: Array) -> tuple[Array, Array]:
        attention, residuals = saved
        scores, lengths = _operands(flat, attention)
        # r = 0 has no derivative where no state is positive; where r is merely too small for a float, it has.
        g = jnp.where(jnp.isneginf(residuals.x_reference), 0, g)
        wide = (flat.p[None], attention.log_z, residuals.reference, residuals.rho, g, residuals.value)
        rows = jnp.stack([_per_row(shape, x) for x in wide], axis=1)
        run = _batched(functools.partial(_kernels().pullback, call, flat.mask is not None))
        dstates, dscores = run(flat.states, scores, lengths, rows)
        return dstates, dscores.transpose(0, 2, 1).reshape(like.shape).astype(like.dtype)

    def portable(inputs: Inputs, saved: Saved, g: Array) -> tuple[Array, Array]:
        cotangents = _xla.backward(call, inputs, saved, g)
        return _flat(cotangents.states), cotangents.scores

    dstates, dscores = _choose(call, inputs, kernel, portable, saved, g.astype(inputs.p.dtype))
    dp = _xla.exponent_cotangent(inputs, saved[1], g.astype(inputs.p.dtype))
    return Inputs(dstates.reshape(shape), dscores, dp, None)
