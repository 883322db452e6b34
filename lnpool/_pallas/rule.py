"""The implementation "pallas": kernels where they are accurate, the portable implementation everywhere else.

The choice is made at run time from the exponents alone, and is the same in the forward and the backward pass. What a
forward pass leaves has the shape of what ``_xla`` leaves: the attention and ``Residuals``.
"""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool._formulas.attention import centred
from lnpool._formulas.safe import select
from lnpool._pallas import compat, gpu, tpu
from lnpool._pallas.online import Result, Row, fields, finish, is_bounded, stacked, unpacked
from lnpool._types import Attention, Call, Inputs, Residuals, Tokens
from lnpool._xla import packed, rule
from lnpool._xla.attend import attend

Saved: TypeAlias = tuple[Attention, Residuals]

LARGEST_EXPONENT = 64.0  # of the online form: above it p log(h/r) loses digits that the exact form keeps
_SAFE_EXPONENT = 80.0  # of the bounded form: e^-80 is still a normal float32

_PLATFORMS = {"tpu": tpu, "gpu": gpu}
_ON_CPU = "the Pallas kernels are compiled for TPU and GPU; on other devices only the tests run them, interpreted"


def why_not() -> str | None:
    """Why this machine cannot run the kernels; None where it can."""
    platform = compat.current_target().platform
    if platform not in _PLATFORMS:
        return f"{_ON_CPU} (the default device here is a {platform})."
    return compat.no_triton() if platform == "gpu" else None


def unsupported(call: Call, inputs: Inputs) -> str | None:
    """Why the kernels cannot take these inputs; None where they can."""
    if inputs.p.dtype != jnp.float32:
        return f"the Pallas kernels compute in float32, not in {inputs.p.dtype}."
    flat = jax.eval_shape(_flat, inputs.tokens.states)
    texts = None if inputs.packing is None else inputs.packing.last.size
    reason: str | None = _kernels().unsupported(flat, _heads(inputs.tokens.scores), texts)
    return reason


def _kernels() -> ModuleType:
    return _PLATFORMS[compat.current_target().platform]


def _heads(scores: Array) -> int:
    return scores.shape[2] if scores.ndim == 4 else 1


def _flat(states: Array) -> Array:
    """[B T *H K] as [B T D]."""
    return states.reshape(*states.shape[:2], math.prod(states.shape[2:]))


def _batched(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` over [B ...] arrays, which vmap turns into a bigger batch; Pallas would loop over the lengths."""

    @jax.custom_batching.custom_vmap
    def run(*args: Array) -> Any:
        with compat.in_32_bits():
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


def _per_text(inputs: Inputs, like: Array | jax.ShapeDtypeStruct, x: Array) -> Array:
    """[B*S|1 1 *H 1|K] as [B S D], for S texts in each of B rows; ``like`` is [B*S 1 *H K]."""
    return jnp.broadcast_to(x, like.shape).reshape(inputs.tokens.states.shape[0], -1, math.prod(like.shape[1:]))


def _operands(inputs: Inputs, attention: Attention) -> tuple[Array, Array]:
    """Scores [B H T], -inf at padding; where texts end, or start: lengths [B], or starts [B S] of packed texts."""
    (_, scores, real), packing = inputs.tokens, inputs.packing
    batch, tokens, *_ = scores.shape
    largest = attention.offset[..., :1]  # whatever the feature: kernels run for p >= 1 only
    if packing is not None:
        largest, real = largest[packing.owner, 0][None], packed.real(packing, inputs.tokens)
    scores = centred(select(real, scores, 0).astype(largest.dtype), largest)
    scores = select(real, scores, -jnp.inf).reshape(batch, tokens, _heads(inputs.tokens.scores)).transpose(0, 2, 1)
    if packing is not None:
        return scores, packing.start[None]
    if real is None:
        return scores, jnp.full(batch, tokens, jnp.int32)
    places = jnp.arange(1, tokens + 1, dtype=jnp.int32)[None]
    return scores, jnp.max(jnp.where(real.reshape(batch, tokens), places, 0), axis=1)


def _applies(call: Call, inputs: Inputs) -> Array:
    """Whether every exponent is in the range where the kernels are as accurate as the exact form."""
    largest = LARGEST_EXPONENT
    if call.log_range is not None and is_bounded(call):
        lower, upper = call.log_range
        largest = (_SAFE_EXPONENT - math.log(inputs.tokens.states.shape[1])) / (upper - lower)
    return jnp.all((inputs.p >= 1) & (inputs.p <= largest))


def _choose(
    call: Call, inputs: Inputs, kernel: Callable[..., Any], portable: Callable[..., Any], *operands: Any
) -> Any:
    """``kernel(flat inputs, *operands)`` or ``portable(inputs, *operands)``.

    The states cross the conditional as [B T D], which costs neither the user nor the kernel a copy.
    """
    shape = inputs.tokens.states.shape

    def with_states(inputs: Inputs, states: Array) -> Inputs:
        return inputs._replace(tokens=inputs.tokens._replace(states=states))

    def exact(flat: Inputs, *operands: Any) -> Any:
        return portable(with_states(flat, flat.tokens.states.reshape(shape)), *operands)

    flat = with_states(inputs, _flat(inputs.tokens.states))
    return lax.cond(_applies(call, inputs), kernel, exact, flat, *operands)


def _pooled(call: Call, like: jax.ShapeDtypeStruct, slope: bool, inputs: Inputs) -> tuple[Array, Saved]:
    """The pooled states ``like`` [B*S 1 *H K], and what the backward pass needs; ``inputs`` hold flat states."""
    attention = attend(call, inputs)
    scores, where = _operands(inputs, attention)
    per_text = functools.partial(_per_text, inputs, like)
    row, mean_z = Row(per_text(inputs.p), per_text(attention.log_z)), per_text(attention.mean_z)
    run = _batched(functools.partial(_kernels().sums, call, slope, inputs.tokens.mask is not None))
    summed = run(inputs.tokens.states, scores, where, stacked(row))
    sums = unpacked(fields(call, slope), jnp.unstack(summed, axis=2))
    residuals = Residuals(*(x.reshape(like.shape) for x in finish(call, row, sums, mean_z)))
    return residuals.value.astype(inputs.tokens.states.dtype), (attention, residuals)


def _pooled_shape(inputs: Inputs) -> jax.ShapeDtypeStruct:
    """Of the pooled states [B*S 1 *H K] of canonical ``inputs``."""
    batch, _, *features = inputs.tokens.states.shape
    texts = batch if inputs.packing is None else inputs.packing.last.size
    return jax.ShapeDtypeStruct((texts, 1, *features), inputs.tokens.states.dtype)


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""

    def kernel(flat: Inputs) -> Array:
        return _pooled(call, _pooled_shape(inputs), False, flat)[0]

    return _choose(call, inputs, kernel, functools.partial(rule.value, call))


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""
    kernel = functools.partial(_pooled, call, _pooled_shape(inputs), True)
    return _choose(call, inputs, kernel, functools.partial(rule.forward, call))


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    shape, like = inputs.tokens.states.shape, inputs.tokens.scores

    def kernel(flat: Inputs, saved: Saved, g: Array) -> tuple[Array, Array]:
        attention, residuals = saved
        scores, where = _operands(flat, attention)
        # r = 0 has no derivative where no state is positive; where r is merely too small for a float, it has.
        g = jnp.where(jnp.isneginf(residuals.y_reference), 0, g)
        row = Result(
            p=flat.p,
            log_z=attention.log_z,
            reference=residuals.reference,
            rho=residuals.rho,
            by_log=g * residuals.gain,
            by_r=jnp.where(g == 0, 0, g * jnp.exp(-residuals.value)) if call.log_output else g,
        )
        run = _batched(functools.partial(_kernels().pullback, call, flat.tokens.mask is not None))
        rows = stacked(Result(*(_per_text(flat, g, x) for x in row)))
        dstates, dscores = run(flat.tokens.states, scores, where, rows)
        return dstates, dscores.transpose(0, 2, 1).reshape(like.shape).astype(like.dtype)

    def portable(inputs: Inputs, saved: Saved, g: Array) -> tuple[Array, Array]:
        cotangents = rule.backward(call, inputs, saved, g).tokens
        return _flat(cotangents.states), cotangents.scores

    dstates, dscores = _choose(call, inputs, kernel, portable, saved, g.astype(inputs.p.dtype))
    dp = rule.exponent_cotangent(inputs, saved[1], g.astype(inputs.p.dtype))
    return Inputs(Tokens(dstates.reshape(shape), dscores, None), dp)
