"""The pooling of one row in a single pass over memory, for log states u = log h in [lower, upper] and 1 <= p.

A known upper bound stands in for the largest state, so no pass looks for it, and the weight goes inside the exponent:

    W = sum_i exp(p (u_i - upper) + log v_i)      log r = upper + log(W)/p        one exp an element
    E = sum_i exp(p (u_i - upper) + log v_i) y_i,  y = u - upper + z              from the same exp

dlog r/dp = (E/W - sum_i v_i z_i - log(W)/p)/p needs nothing else, so the backward pass has no reduction over tokens:
it reads the states once and writes their gradient once (docs/math.md, section 5).
"""

import math

import jax.numpy as jnp
from jax import Array, lax

from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, count, log_weights, select

_SAFE_EXPONENT = 80.0  # e^-80 is still a normal float32


def applies(call: Call, inputs: Inputs) -> Array | None:
    """Whether every exponent is in the range where this form is as accurate as the exact one; None if it never is.

    Below p = 1 the quotient log(W)/p would amplify rounding; above the upper end W could underflow.
    """
    if not call.is_bounded:
        return None
    assert call.log_range is not None
    lower, upper = call.log_range
    tokens = inputs.states.shape[1] * (lax.axis_size(call.axis_name) if call.axis_name else 1)
    largest = _SAFE_EXPONENT - math.log(tokens)
    return jnp.all((inputs.p >= 1) & (inputs.p * (upper - lower) <= largest))


def _log_states(call: Call, inputs: Inputs, upper: float) -> Array:
    """u - upper: padding reads as 0, a zero state (u = -inf) as a finite number whose exponential is 0."""
    states = select(inputs.mask, inputs.states, 0 if call.scale_limit else upper).astype(inputs.p.dtype)
    if call.scale_limit:
        states = SCALE_LIMITS[call.scale_limit].log_states(states)
    return jnp.maximum(states - upper, -1e30)


def summands(call: Call, inputs: Inputs, attention: Attention) -> tuple[Array, Array]:
    """What W and E sum over tokens [T *H K]; those of some tokens do not depend on the others."""
    assert call.log_range is not None
    log_v = select(inputs.mask, log_weights(call, inputs, attention), -jnp.inf)
    # Without the barrier XLA would compute the weights again for every feature.
    z, log_v = lax.optimization_barrier((attention.z, log_v))
    d = _log_states(call, inputs, call.log_range[1])
    terms = jnp.exp(inputs.p * d + log_v)
    return terms, terms * (d + z if call.sharpen else d)


def _log_mean(call: Call, inputs: Inputs, w: Array) -> tuple[Array, Array]:
    """rho = log(r) - upper, and r itself: 0 where every state is."""
    assert call.log_range is not None
    rho = jnp.log(jnp.where(w == 0, 1, w)) / inputs.p
    return rho, jnp.where(w == 0, 0, jnp.exp(call.log_range[1] + rho))


def value(call: Call, inputs: Inputs, w: Array) -> Array:
    """The pooled value r [1 *H K] from the sum W."""
    return _log_mean(call, inputs, w)[1]


def forward(call: Call, inputs: Inputs, attention: Attention, w: Array, e: Array) -> Residuals:
    """The pooled value r [1 *H K] and all that the backward pass needs, from the sums W and E."""
    assert call.log_range is not None
    rho, r = _log_mean(call, inputs, w)
    mean_z = attention.mean_z if call.sharpen else 0
    slope = jnp.where(w == 0, 0, (e / jnp.where(w == 0, 1, w) - mean_z - rho) / inputs.p)
    nothing = jnp.zeros_like(rho)
    return Residuals(r, slope, rho, nothing + call.log_range[1], nothing, nothing)


def _shares(call: Call, inputs: Inputs, attention: Attention, residuals: Residuals) -> tuple[Array, Array]:
    """w [T *H K] and v [T *H 1|K], the shares of each token in W and in the attention."""
    assert call.log_range is not None
    log_v = log_weights(call, inputs, attention)
    log_v, v = lax.optimization_barrier((log_v, jnp.exp(log_v)))
    d = _log_states(call, inputs, call.log_range[1])
    return jnp.exp(inputs.p * (d - residuals.rho) + log_v), v


def partials(call: Call, inputs: Inputs, attention: Attention, residuals: Residuals) -> tuple[Array, Array]:
    """dr/dlog states and dr/dscores [T *H K], before the sum over the features of a head; to be fused, never stored."""
    w, v = _shares(call, inputs, attention, residuals)
    r = residuals.value
    return r * w, r * (w - v if call.sharpen else (w - v) / inputs.p)


def cotangents(call: Call, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array) -> tuple[Array, Array]:
    """Cotangents of log states [T *H K] and scores [T *H 1] for that of r; no token depends on another."""
    dlog, v, k = _cotangents(call, inputs, attention, residuals, g)
    return dlog, jnp.sum((dlog - v * k) * (1 if call.sharpen else 1 / inputs.p), axis=-1, keepdims=True)


def cotangents_of_rows(
    call: Call, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array
) -> tuple[Array, Array]:
    """``cotangents`` for one exponent and whole rows: the sums are of dlog itself, which XLA has stored as a result."""
    dlog, v, k = _cotangents(call, inputs, attention, residuals, g)
    dscores = jnp.sum(dlog, axis=-1, keepdims=True) - v * jnp.sum(k, axis=-1, keepdims=True)
    # The score of a token alone has no effect; two sums in different order would leave rounding.
    return dlog, jnp.where(count(call, inputs) == 1, 0, dscores * (1 if call.sharpen else 1 / inputs.p))


def _cotangents(
    call: Call, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array
) -> tuple[Array, Array, Array]:
    """Of log states [T *H K]; v [T *H 1|K], 0 at padding; g r [1 *H K]."""
    w, v = _shares(call, inputs, attention, residuals)
    k = lax.optimization_barrier(g * residuals.value)
    return select(inputs.mask, k * w, 0), select(inputs.mask, v, 0), k
