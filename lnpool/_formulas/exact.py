"""The pooling for every exponent: p = 0, +-1e-12, 1, 1e4, +-inf, and every h >= 0, zeros included.

With v = softmax(p z) over tokens, the pooling is a weighted power mean, r = [sum_i v_i h_i^p]^(1/p). Its logarithm
relative to a reference state, rho = log(r/h_ref), comes from d_i = log(h_i/h_ref) in one of two ways (docs/math.md):

    S = sum_i v_i (e^(p d_i) - 1),     rho = log(1 + S)/p                            while S >= -1/2: no pole at p = 0
    W = sum_i exp(p (y_i - y_ref)),    rho = y_ref + (log W - log Z)/p,  y = z + d   where few tokens carry the sum

and every derivative from l_i = log(h_i/r) and w_i = v_i (h_i/r)^p, the share of token i in the sum:

    dlog r/dz_i = w_i - v_i     dlog r/dlog h_i = w_i
    dlog r/dp = sum_i v_i l_i^2 psi(p l_i) + (w_i - v_i)/p (z_i - mean_v z)

The reference (the largest state for p >= 0, the smallest positive one for p < 0) keeps every exponent <= 0. For
attention that stays out of the power, y = z + p d and its scale is 1 where it is p above.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from lnpool._formulas.safe import at_most, equal_by_rounding, finite, over, select, sign_of
from lnpool._formulas.series import eta, log1p_ratio, psi

SMALLEST = 1e-12  # size of an exponent
NEAR = 0.5  # |p l| up to which the series are used


class Shares(NamedTuple):
    """How the tokens share the sum: log(h/r), w, w - v and (w - v)/p, none of them by a cancelling difference."""

    log_ratio: Array
    log_w: Array
    w: Array
    v: Array
    difference: Array
    difference_over_p: Array
    near: Array  # |p l| <= 1/2: the side of the series


def usable(p: Array, log_output: bool) -> Array:
    """The exponent, finite, and if it is not 0 no nearer to it than ``SMALLEST``: powers of 1/p must be floats.

    Nothing can be seen of that where all states are positive, for p = 0 is a smooth point; and with a zero among them r
    is 0 there already, unless the zero has less than 1e-10 of the attention. The logarithm of r can be seen.
    """
    p = finite(p)
    return (
        p
        if log_output
        else p + lax.stop_gradient(jnp.where((p != 0) & (jnp.abs(p) < SMALLEST), sign_of(p) * SMALLEST - p, 0))
    )


def exponents(p: Array, d: Array, z: Array, sharpen: bool) -> tuple[Array, Array]:
    """y and the scale by which it is multiplied in the exponents of W."""
    return (z + d, p) if sharpen else (z + p * d, jnp.ones_like(p))


def relative(p: Array, scale: Array, y: Array, y_reference: Array, is_linear: bool) -> Array:
    """The exponents of W: subtract before multiplying, p (y - y_ref) keeps the digits that p y - p y_ref has lost.

    y and y_ref come of two passes, which XLA may round differently; a large p would make a share of that, so what
    differs by roundings is equal. The terms of y have one sign, so its size is theirs, but for d = log(h/h_ref) of
    linear states: it is off by a rounding of the ratio, which is of size 1.
    """
    y_reference = jnp.where(jnp.isinf(y_reference), 0, y_reference)
    size = jnp.where(_as_infinite(scale), jnp.maximum(jnp.abs(y_reference), 1), jnp.abs(y_reference))
    if is_linear:  # under an infinite p only states that are equal to the bit have equal y
        size = size + jnp.where(_as_infinite(p), 0, jnp.abs(p / jnp.where(scale == 0, 1, scale)))
    difference = equal_by_rounding(y - y_reference, lax.stop_gradient(size), _large(p))
    return at_most(scale * difference, 0)


def mean_terms(p: Array, d: Array, zero: Array, log_v: Array) -> Array:
    """The summands of S/p."""
    v = jnp.exp(log_v)
    at_zero = jnp.where(p > 0, -over(v, jnp.where(p > 0, p, 1)), -jnp.inf)
    return jnp.where(zero, at_zero, v * d * eta(at_most(p * d, 0)))


def log_mean(
    p: Array, mean: Array, log_w: Array, log_z: Array, y_reference: Array, sharpen: bool
) -> tuple[Array, Array]:
    """rho = log(r/reference), and where r = 0 instead: no positive state, or a zero among them and p <= 0."""
    empty = jnp.isinf(y_reference)
    vanishes = jnp.isneginf(mean) | (empty & ~jnp.isnan(mean))
    near = (p * mean >= -NEAR) & ~vanishes
    safe_mean = jnp.where(near, mean, 0)
    y_reference = jnp.where(empty, 0, y_reference)
    concentrated = over(log_w - log_z + (0 if sharpen else y_reference), p, ~(near | vanishes))
    concentrated = concentrated + y_reference if sharpen else concentrated
    rho = jnp.where(near, safe_mean * log1p_ratio(p * safe_mean), concentrated)
    return jnp.where(vanishes, 0, rho), vanishes


def shares(p: Array, d: Array, zero: Array, keep: Array, log_v: Array, log_w: Array, rho: Array) -> Shares:
    """How the tokens share the sum; ``log_w`` is that of token and text, x - log W.

    Only tokens to ``keep`` have a share: no zeros, and no padding.
    """
    l = d - rho  # noqa: E741  # the letter of docs/math.md
    near = (jnp.abs(p * l) <= NEAR) & ~zero
    l_near = jnp.where(near, l, 0)
    v = jnp.exp(log_v)
    w = _exp_or_0(keep, log_w)
    over_p = v * l_near * eta(p * l_near)
    by_series = near & (~_large(p) | (l == 0))
    return Shares(
        log_ratio=l,
        log_w=log_w,
        w=w,
        v=v,
        difference=jnp.where(by_series, p * over_p, w - v),
        difference_over_p=jnp.where(by_series, over_p, over(w - v, p, ~by_series)),
        near=near,
    )


def slope_terms(p: Array, of: Shares, log_v: Array, z: Array, mean_z: Array, sharpen: bool) -> Array:
    """The summands of dlog r/dp: KL(w || v)/p^2, and with sharpened attention the covariance of (w - v)/p and z."""
    l_near = jnp.where(of.near, of.log_ratio, 0)
    divergence = over(over(of.w * (of.log_w - log_v - 1) + of.v, p, ~of.near), p, ~of.near)
    terms = jnp.where(of.near, of.v * l_near**2 * psi(p * l_near), divergence)
    return terms + of.difference_over_p * (z - mean_z) if sharpen else terms


def by_log_states(p: Array, of: Shares, keep: Array, log_v: Array, power: float = 1) -> Array:
    """dlog r/dlog h = w, to some power."""
    return _exp_or_0(keep, power * jnp.where(_large(p), of.log_w, log_v + p * of.log_ratio))


def by_states(p: Array, of: Shares, zero: Array, log_v: Array) -> Array:
    """dr/dh, which is without bound at a zero for p < 1: there 0, and near there no more than a float holds."""
    exponent = jnp.where(_large(p), of.log_w - of.log_ratio, log_v + (p - 1) * of.log_ratio)
    largest = 709.0 if p.dtype == jnp.float64 else 88.0
    return jnp.where(zero, jnp.where(p == 1, of.v, 0), jnp.exp(jnp.minimum(exponent, largest)))


def _exp_or_0(keep: Array, exponent: Array) -> Array:
    """e^exponent, and 0 where there is nothing to keep, however large the exponent: in the derivatives too."""
    return jnp.exp(jnp.where(keep, exponent, -jnp.inf))


def _large(p: Array) -> Array:
    """Where p l has lost digits that log w has kept: rho may be off by a rounding, of which p l has p times as much."""
    return jnp.abs(p) > 8


def _as_infinite(p: Array) -> Array:
    """Where a rounding of a number of size 1, times p, decides between two tokens."""
    return jnp.abs(p) > 0.1 / float(jnp.finfo(p.dtype).eps)


def shares_of_zeros(zero: Array, log_v: Array, mask: Array | None) -> Array:
    """The weights of the zero states, which share the sum where r = 0."""
    return select(mask, jnp.where(zero, jnp.exp(log_v), 0), 0)
