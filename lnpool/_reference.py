"""The definition, in the notation of the paper. The oracle of the tests, and a place to read what is computed.

    r = [ sum_i (a_i h_i)^p / sum_i a_i^p ]^(1/p)        a = softmax(z), elementwise over features, i over real tokens

Plain logarithms and exponentials, so that float64 reproduces the formula wherever it is well conditioned, and no
custom derivative. (Wu et al., "Attentive Pooling with Learnable Norms for Text Representation", ACL 2020.)
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.nn import logsumexp

from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._types import Call, Inputs

_NEAR_ZERO = 1e-6  # |p| below which the formula is 0/0 in float64 and its expansion around p = 0 takes over


def pool(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K]."""
    states, scores, mask = inputs.tokens
    mask = jnp.ones_like(scores, bool) if mask is None else mask
    p = jnp.clip(inputs.p, -1e30, 1e30)
    z = jnp.clip(jnp.where(mask, scores, 0).astype(p.dtype), -1e30, 1e30)
    u, positive = _log_states(call, mask, states.astype(p.dtype))
    some_positive = jnp.any(mask & positive, axis=1, keepdims=True)
    some_zero = jnp.any(mask & ~positive, axis=1, keepdims=True)
    dead = ~some_positive | ((p <= 0) & some_zero)  # r = 0; below, constants stand in for what is undefined there

    def log_norm(y: Array, keep: Array, weights: Array | float = 1.0) -> Array:
        """log [sum_i weights_i exp(y_i)^p]^(1/p) over the kept tokens; p multiplies differences, whose digits count."""
        sign = jnp.where(p >= 0, 1, -1).astype(p.dtype)
        top = lax.stop_gradient(sign * jnp.max(jnp.where(keep, sign * y, -jnp.inf), axis=1, keepdims=True))
        sums = jnp.sum(jnp.where(keep, weights * jnp.exp(p_far * (y - top)), 0), axis=1, keepdims=True)
        return top + jnp.log(sums) / p_far

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(mask, x, 0), axis=1, keepdims=True) / n

    n = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1).astype(p.dtype)
    near_zero = jnp.abs(p) < _NEAR_ZERO
    p_far = jnp.where(near_zero, 1, p)
    positive, tokens = (mask & positive) | dead, mask | dead
    of_text = jnp.broadcast_to(mask | ~jnp.any(mask, axis=1, keepdims=True), z.shape)
    log_a = z - logsumexp(z, axis=1, keepdims=True, where=of_text)
    if call.sharpen:
        log_r = log_norm(log_a + u, positive) - log_norm(log_a, tokens)
    else:
        log_r = log_norm(u, positive, jnp.exp(log_a))

    # log r = mean(u) + p (var(u)/2 + cov(u, z)) + O(p^2), in the weights that are left at p = 0
    v = jnp.ones_like(z) if call.sharpen else n * jnp.exp(log_a)
    mean_u = mean(v * u)
    spread = mean(v * (u - mean_u) ** 2) / 2 + (mean((u - mean_u) * (z - mean(z))) if call.sharpen else 0)
    log_r = jnp.where(near_zero, mean_u + p * spread, log_r)
    log_r = jnp.where(dead, 0, log_r)
    r = jnp.where(dead, -jnp.inf, log_r) if call.log_output else jnp.where(dead, 0, jnp.exp(log_r))
    r = jnp.where(jnp.any(mask & jnp.isnan(u), axis=1, keepdims=True), jnp.nan, r)
    return r.astype(states.dtype)


def _log_states(call: Call, mask: Array, states: Array) -> tuple[Array, Array]:
    """log h, finite everywhere, and where h is positive (or NaN, which must pass)."""
    if call.scale_limit:
        states = SCALE_LIMITS[call.scale_limit].log_states(jnp.where(mask, states, 1))
    if call.scale_limit or call.log_states:
        positive = states != -jnp.inf
        return jnp.where(mask & positive, states, 0), positive
    positive = states != 0
    return jnp.log(jnp.where(mask & positive, states, 1)), positive
