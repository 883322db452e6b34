"""The attention weights inside the pooling: v = softmax(p z), or softmax(z) when attention stays out of the power."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lnpool._types import Call, Inputs

INFINITE = 1e30  # stands for an infinite exponent or score: large enough to be one, small enough to multiply


class Attention(NamedTuple):
    """Centred scores z <= 0 (>= 0 for p < 0) and log v over tokens, with what rebuilds them without a reduction."""

    z: Array
    log_v: Array  # finite nonsense at masked tokens: select, never multiply
    z_reference: Array
    log_z: Array


def total(x: Array) -> Array:
    """Sum over tokens."""
    return jnp.sum(x, axis=1, keepdims=True)


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


def extremum(sign: Array, x: Array, keep: Array | None) -> Array:
    """Largest (sign +1) or smallest (sign -1) kept ``x`` over tokens; -+inf where none is kept. No gradient."""
    return lax.stop_gradient(sign * jnp.max(select(keep, sign * x, -jnp.inf), axis=1, keepdims=True))


def attend(call: Call, inputs: Inputs, known: tuple[Array, Array] | None = None) -> Attention:
    """Scores to weights. ``known`` holds (z_reference, log_z) of an earlier call, which saves both reductions."""
    scores = select(inputs.mask, inputs.scores, 0).astype(inputs.p.dtype)
    p = finite(inputs.p) if call.sharpen else jnp.ones((1, 1, 1, 1), inputs.p.dtype)
    if known is None:
        reference = extremum(sign_of(p), scores, inputs.mask)
        if inputs.mask is not None:
            reference = jnp.where(jnp.any(inputs.mask, axis=1, keepdims=True), reference, 0)
    else:
        reference = lax.stop_gradient(known[0])
    z = jnp.clip(scores - reference, -INFINITE, INFINITE)
    q = at_most(p * z, 0)
    log_z = jnp.log(at_least(total(select(inputs.mask, jnp.exp(q), 0)), 1)) if known is None else known[1]
    return Attention(z, q - log_z, reference, log_z)
