"""The pooling of one row for every exponent: p = 0, +-1e-12, 1, 1e4, +-inf, and every h >= 0, zeros included.

With v = softmax(p z) over tokens, the pooling is a weighted power mean, r = [sum_i v_i h_i^p]^(1/p). Its logarithm
relative to a reference state, rho = log(r/h_ref), comes from d_i = log(h_i/h_ref) in one of two ways (docs/math.md):

    S = sum_i v_i (e^(p d_i) - 1),     rho = log(1 + S)/p                            while S >= -1/2: no pole at p = 0
    W = sum_i exp(p (y_i - y_ref)),    rho = y_ref + (log W - log Z)/p,  y = z + d   where few tokens carry the sum

and every derivative from l_i = log(h_i/r) and w_i = v_i (h_i/r)^p, the share of token i in the sum:

    dr/dz_i = r (w_i - v_i)     dr/dlog h_i = r w_i
    dlog r/dp = sum_i v_i l_i^2 psi(p l_i) + (w_i - v_i)/p (z_i - mean_v z)

The reference (the largest state for p >= 0, the smallest positive one for p < 0) keeps every exponent <= 0.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lnpool._scale import SCALE_LIMITS
from lnpool._series import eta, log1p_ratio, psi
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, at_least, at_most, attend, extremum, finite, log_weights, select, sign_of, total

RATIO_RANGE = (1e-37, 1e37)  # where h/h_ref neither overflows nor underflows in float32


class _Tokens(NamedTuple):
    """Per token and feature: the state, d = log(h/reference) (finite at a zero too), the zeros, score and log v."""

    states: Array
    d: Array
    zero: Array
    z: Array
    log_v: Array
    x: Array  # log of v h^p up to a constant: largest is 0


class _Shares(NamedTuple):
    """How the tokens share the sum: log(h/r), w, w - v and (w - v)/p, none of them by a cancelling difference."""

    log_ratio: Array
    log_w: Array
    w: Array
    v: Array
    difference: Array
    difference_over_p: Array
    near: Array  # |p l| <= 1/2: the Taylor side


def _states(call: Call, inputs: Inputs) -> Array:
    """h for linear input, log h otherwise, in the dtype of p; padding reads as h = 1."""
    states = select(inputs.mask, inputs.states, 1 if call.is_linear else 0).astype(inputs.p.dtype)
    return SCALE_LIMITS[call.scale_limit].log_states(states) if call.scale_limit else states


def _log_ratio(call: Call, states: Array, zero: Array, reference: Array) -> Array:
    """log(h/reference), and something finite at a zero."""
    if not call.is_linear:
        return jnp.where(zero, 0, states) - reference
    # A ratio inside float range is exact near 1; outside of it the two logarithms are taken apart.
    ratio = states / reference
    ratio = ratio - lax.stop_gradient(jnp.where(states == reference, ratio - 1, 0))  # XLA may take 1/reference first
    inside = (ratio > RATIO_RANGE[0]) & (ratio < RATIO_RANGE[1])
    argument = jnp.where(zero, 1, jnp.where(inside, ratio, states))
    return jnp.log(argument) - jnp.where(inside | zero, 0, jnp.log(reference))


def _tokens(
    call: Call, inputs: Inputs, attention: Attention, known: Residuals | None = None
) -> tuple[_Tokens, Residuals]:
    """The per-token quantities, with every reduction they need taken from ``known`` or left in the residuals."""
    p, linear = finite(inputs.p), call.is_linear
    states = _states(call, inputs)
    zero = states == (0 if linear else -jnp.inf)
    keep = ~zero if inputs.mask is None else ~zero & inputs.mask
    if known is None:
        reference = extremum(call, inputs, sign_of(p), states, keep)
        reference = jnp.where(jnp.isinf(reference), 1 if linear else 0, reference)
    else:
        reference = lax.stop_gradient(known.reference)
    d = _log_ratio(call, states, zero, reference)
    # Subtract before multiplying: p (y - y_ref) keeps the digits that p y - p y_ref has lost.
    z = attention.z
    y, scale = (z + d, p) if call.sharpen else (z + p * d, jnp.ones_like(p))
    x_reference = (
        extremum(call, inputs, sign_of(scale), y, keep) if known is None else lax.stop_gradient(known.x_reference)
    )
    empty = jnp.isinf(x_reference)
    x = at_most(scale * (y - jnp.where(empty, 0, x_reference)), 0)
    log_w = known.log_w if known else jnp.log(at_least(total(call, inputs, jnp.where(keep, jnp.exp(x), 0)), 1))
    nothing = jnp.zeros_like(x_reference)
    tokens = _Tokens(states, d, zero, z, log_weights(call, inputs, attention), x)
    return tokens, Residuals(nothing, nothing, nothing, reference, x_reference, log_w)


def _log_mean(
    call: Call, inputs: Inputs, attention: Attention, tokens: _Tokens, sums: Residuals
) -> tuple[Array, Array]:
    """rho = log(r/reference), and where r = 0 instead: no positive state, or a zero among them and p <= 0."""
    p = finite(inputs.p)
    nonzero_p = jnp.where(p == 0, 1, p)
    v = jnp.exp(tokens.log_v)
    at_zero = jnp.where(p > 0, -v / nonzero_p, -jnp.inf)
    term = jnp.where(tokens.zero, at_zero, v * tokens.d * eta(at_most(p * tokens.d, 0)))
    mean = total(call, inputs, select(inputs.mask, term, 0))
    empty = jnp.isinf(sums.x_reference)
    vanishes = jnp.isneginf(mean) | (empty & ~jnp.isnan(mean))
    near = p * mean >= -0.5
    safe_mean = jnp.where(near, mean, 0)
    x_reference = jnp.where(empty, 0, sums.x_reference)
    concentrated = (sums.log_w - attention.log_z + (0 if call.sharpen else x_reference)) / nonzero_p
    concentrated = concentrated + x_reference if call.sharpen else concentrated
    rho = jnp.where(near, safe_mean * log1p_ratio(p * safe_mean), concentrated)
    return jnp.where(vanishes, 0, rho), vanishes


def _shares(inputs: Inputs, tokens: _Tokens, residuals: Residuals) -> _Shares:
    p = finite(inputs.p)
    log_ratio = tokens.d - residuals.rho
    near = (jnp.abs(p * log_ratio) <= 0.5) & ~tokens.zero
    l_near = jnp.where(near, log_ratio, 0)
    nonzero_p = jnp.where(near | (p == 0), 1, p)
    v = jnp.exp(tokens.log_v)
    log_w = tokens.x - residuals.log_w
    w = jnp.where(tokens.zero, 0, jnp.exp(log_w))
    over_p = v * l_near * eta(p * l_near)
    return _Shares(
        log_ratio=log_ratio,
        log_w=log_w,
        w=w,
        v=v,
        difference=jnp.where(near, p * over_p, w - v),
        difference_over_p=jnp.where(near, over_p, (w - v) / nonzero_p),
        near=near,
    )


def _slope(call: Call, inputs: Inputs, attention: Attention, tokens: _Tokens, residuals: Residuals) -> Array:
    """d log r / d p: KL(w || v)/p^2, and with sharpened attention the covariance of (w - v)/p with the scores."""
    p = finite(inputs.p)
    shares = _shares(inputs, tokens, residuals)
    near, v, w = shares.near, shares.v, shares.w
    l_near, nonzero_p = jnp.where(near, shares.log_ratio, 0), jnp.where(near | (p == 0), 1, p)
    divergence = w * (shares.log_w - tokens.log_v - 1) + v
    terms = jnp.where(near, v * l_near**2 * psi(p * l_near), divergence / nonzero_p / nonzero_p)
    if call.sharpen:
        terms = terms + shares.difference_over_p * (tokens.z - attention.mean_z)
    return total(call, inputs, select(inputs.mask, terms, 0))


def _pooled(call: Call, inputs: Inputs, attention: Attention) -> tuple[_Tokens, Residuals, Array]:
    """Everything but the slope, and where r = 0."""
    tokens, sums = _tokens(call, inputs, attention)
    rho, vanishes = _log_mean(call, inputs, attention, tokens, sums)
    half = jnp.exp(rho / 2)  # e^rho alone may overflow where r does not
    r = sums.reference * half * half if call.is_linear else jnp.exp(sums.reference + rho)
    return tokens, sums._replace(value=jnp.where(vanishes, 0, r), rho=rho), vanishes


def value(call: Call, inputs: Inputs, attention: Attention) -> Array:
    """The pooled value r [1 *H K]."""
    return _pooled(call, inputs, attention)[1].value


def forward(call: Call, inputs: Inputs, attention: Attention) -> Residuals:
    """The pooled value r [1 *H K] and all that the backward pass needs."""
    tokens, residuals, vanishes = _pooled(call, inputs, attention)
    slope = _slope(call, inputs, attention, tokens, residuals)
    return residuals._replace(slope=jnp.where(vanishes | jnp.isinf(inputs.p), 0, slope))


def partials(call: Call, inputs: Inputs, attention: Attention, residuals: Residuals) -> tuple[Array, Array]:
    """dr/dstates and dr/dscores [T *H K], before the sum over the features of a head; to be fused, never stored."""
    p = finite(inputs.p)
    tokens, _ = _tokens(call, inputs, attention, residuals)
    shares = _shares(inputs, tokens, residuals)
    r = residuals.value
    far = ~shares.near & (jnp.abs(p) > 8)  # there p l has lost digits that x has kept
    if call.is_linear:
        exponent = jnp.where(far, shares.log_w - shares.log_ratio, tokens.log_v + (p - 1) * shares.log_ratio)
        dr_dh = jnp.exp(jnp.minimum(exponent, math.log(float(jnp.finfo(p.dtype).max))))  # p < 1 only
        dr_dstates = jnp.where(tokens.zero, jnp.where(p == 1, shares.v, 0), dr_dh)
        vanishes = (r == 0) & ((p <= 0) | jnp.isinf(residuals.x_reference))  # and is not merely too small for a float
        dr_dstates = jnp.where(vanishes, 0, dr_dstates)
    else:
        w = jnp.exp(jnp.where(far, shares.log_w, tokens.log_v + p * shares.log_ratio))
        dr_dstates = r * jnp.where(tokens.zero, 0, w)
    dr_dscores = r * (shares.difference if call.sharpen else shares.difference_over_p)
    return dr_dstates, dr_dscores


def cotangents(call: Call, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array) -> tuple[Array, Array]:
    """Cotangents of states (log states, where those are the input) [T *H K] and scores [T *H 1] for that of r."""
    dr_dstates, dr_dscores = partials(call, inputs, attention, residuals)
    dscores = jnp.sum(select(inputs.mask, g * dr_dscores, 0), axis=-1, keepdims=True)
    return select(inputs.mask, g * dr_dstates, 0), dscores


def contributions(call: Call, inputs: Inputs) -> Array:
    """w [T *H K], the share of each token in the sum; where r = 0, the weights of the zero states that made it so."""
    tokens, sums, vanishes = _pooled(call, inputs, attend(call, inputs))
    w = jnp.where(tokens.zero, 0, jnp.exp(tokens.x - sums.log_w))
    at_zeros = select(inputs.mask, jnp.where(tokens.zero, jnp.exp(tokens.log_v), 0), 0)
    w_zeros = at_zeros / at_least(total(call, inputs, at_zeros), float(jnp.finfo(at_zeros.dtype).tiny))
    return select(inputs.mask, jnp.where(vanishes, w_zeros, w), 0)
