"""The attention weights of one row: v = softmax(p z), or softmax(z) when attention stays out of the power.

``total`` and ``extremum`` are the only reductions over tokens: where the tokens of a text lie in several rows or on
several devices, its sums and extrema meet here.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lnpool import _pieces
from lnpool._types import Call, Inputs

INFINITE = 1e30  # stands for an infinite exponent or score: large enough to be one, small enough to multiply


class Centred(NamedTuple):
    """The scores of one row, moved so that p z <= 0."""

    scores: Array  # z less the largest [T *H 1]
    offset: Array  # 0 for p >= 0, the smallest of ``scores`` for p < 0 [1 *H 1|K], as wide as p


class Attention(NamedTuple):
    """The attention of one row, small enough to keep: everything per token without a reduction."""

    scores: Array  # those of ``Centred``
    offset: Array
    log_z: Array  # log of the softmax denominator, relative to the offset
    mean_z: Array  # mean of the centred scores under v

    @property
    def z(self) -> Array:
        """Centred scores [T *H 1|K]: p z <= 0 for either sign of p."""
        return self.scores - self.offset


def total(call: Call, inputs: Inputs, x: Array, axis: int | None = None) -> Array:
    """Sum over the tokens of a text."""
    axis = _tokens_axis(inputs) if axis is None else axis
    return _meet(call, inputs, jnp.sum(x, axis=axis, keepdims=True), jnp.add, lax.psum)


def _tokens_axis(inputs: Inputs) -> int:
    """The axis of tokens, behind that of rows where packed texts bring them all at once."""
    return 0 if inputs.pieces is None else 1


def _meet(
    call: Call,
    inputs: Inputs,
    x: Array,
    operation: Callable[[Array, Array], Array],
    collective: Callable[[Array, str], Array],
) -> Array:
    """What a row knows -> what its whole text knows."""
    pieces = inputs.pieces
    if pieces is not None:
        x = _pieces.combine(pieces, x, operation)
    if call.axis_name is not None:
        x = collective(x, call.axis_name)
    return x if pieces is None else _pieces.of_rows(pieces, x)


def select(mask: Array | None, x: Array, otherwise: Array | float) -> Array:
    """``x`` at real tokens, ``otherwise`` at padding: what padding holds cannot pass, NaN included."""
    return x if mask is None else jnp.where(mask, x, otherwise)


def at_most(x: Array, bound: float) -> Array:
    """min(x, bound) with the derivative of x: for bounds that only rounding can cross."""
    return x - lax.stop_gradient(jnp.maximum(x - bound, 0))


def at_least(x: Array, bound: float) -> Array:
    """max(x, bound) with the derivative of x."""
    return x + lax.stop_gradient(jnp.maximum(bound - x, 0))


def sign_of(p: Array) -> Array:
    """+1 for p >= 0, else -1."""
    return jnp.where(p >= 0, 1, -1).astype(p.dtype)


def finite(p: Array) -> Array:
    """The exponent with +-inf replaced by a number that acts as one."""
    return jnp.clip(p, -INFINITE, INFINITE)


def extremum(call: Call, inputs: Inputs, sign: Array, x: Array, keep: Array | None, axis: int | None = None) -> Array:
    """Largest (sign +1) or smallest (sign -1) kept ``x`` over tokens; -+inf where none is kept. No gradient."""
    axis = _tokens_axis(inputs) if axis is None else axis
    largest = jnp.max(select(keep, lax.stop_gradient(sign * x), -jnp.inf), axis=axis, keepdims=True)
    return lax.stop_gradient(sign) * _meet(call, inputs, largest, jnp.maximum, lax.pmax)


def _power(call: Call, inputs: Inputs) -> Array:
    """The exponent that sharpens the attention."""
    return finite(inputs.p) if call.sharpen else jnp.ones((1,) * inputs.p.ndim, inputs.p.dtype)


def _tokens_last(inputs: Inputs, x: Array) -> Array:
    """[T *H K] -> [*H K T]. On a CPU, XLA vectorises over the last axis alone, and scores have K = 1."""
    return jnp.moveaxis(x, _tokens_axis(inputs), -1)


def _tokens_first(inputs: Inputs, x: Array) -> Array:
    return jnp.moveaxis(x, -1, _tokens_axis(inputs))


def centre(call: Call, inputs: Inputs) -> Centred:
    """Scores less the largest one, and the offset that keeps p z <= 0."""
    last = functools.partial(_tokens_last, inputs)
    p, mask = last(_power(call, inputs)), None if inputs.mask is None else last(inputs.mask)
    is_text = None if mask is None else last(count(call, inputs) > 0)
    up, down = jnp.ones((), p.dtype), -jnp.ones((), p.dtype)
    scores = select(mask, last(inputs.scores), 0).astype(p.dtype)
    scores = scores - select(is_text, extremum(call, inputs, up, scores, mask, axis=-1), 0)
    scores = jnp.clip(scores, -INFINITE, INFINITE)
    offset = jnp.where(p >= 0, 0, select(is_text, extremum(call, inputs, down, scores, mask, axis=-1), 0))
    return Centred(*(_tokens_first(inputs, x) for x in (scores, offset)))


def normalise(call: Call, inputs: Inputs, centred: Centred) -> tuple[Array, Array]:
    """The sums of the attention over tokens: log_z and mean_z [1 *H 1|K]."""
    last = functools.partial(_tokens_last, inputs)
    p, mask = last(_power(call, inputs)), None if inputs.mask is None else last(inputs.mask)
    scores, offset = map(last, centred)
    z = scores - offset
    q = select(mask, at_most(p * z, 0), -jnp.inf)
    log_z = jnp.log(at_least(total(call, inputs, jnp.exp(q), axis=-1), 1))
    mean_z = total(call, inputs, jnp.exp(q - log_z) * z, axis=-1)
    return _tokens_first(inputs, log_z), _tokens_first(inputs, mean_z)


def attend(call: Call, inputs: Inputs) -> Attention:
    """Scores to attention."""
    centred = centre(call, inputs)
    return Attention(*centred, *normalise(call, inputs, centred))


def count(call: Call, inputs: Inputs) -> Array:
    """Number of tokens of the text [1 *1 1]."""
    real = jnp.ones_like(inputs.scores, bool) if inputs.mask is None else inputs.mask
    return total(call, inputs, real.astype(inputs.p.dtype))


def log_weights(call: Call, inputs: Inputs, attention: Attention) -> Array:
    """log v [T *H 1|K], as wide as p; a finite number at padding: select, never multiply."""
    p, z, log_z = _power(call, inputs), attention.z, attention.log_z
    if z.shape[-1] > 1:
        return at_most(p * z, 0) - log_z
    p, z, log_z = (_tokens_last(inputs, x) for x in (p, z, log_z))
    return _tokens_first(inputs, at_most(p * z, 0) - log_z)


def weights(call: Call, inputs: Inputs) -> Array:
    """v [T *H 1|K], 0 at padding."""
    return select(inputs.mask, jnp.exp(log_weights(call, inputs, attend(call, inputs))), 0)
