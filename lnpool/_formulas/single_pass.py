"""The pooling in a single pass over memory, for p from 1/2 to 30.

An upper bound of the states, known or measured, is the reference, and the weight goes inside the exponent:

    d_i = log(h_i / reference) <= 0
    W = sum_i exp(p d_i + log v_i)                  log r = log reference + log(W)/p       one exp an element
    E = sum_i exp(p d_i + log v_i) y_i              y_i = d_i + z_i, or d_i                from the same exp
    dlog r/dp = (E/W - sum_i v_i z_i - log(W)/p)/p

so the backward pass has no reduction over tokens: it reads the states once and writes their gradient once. W is at
least v at the largest state, so it can underflow only where attention there is below ``SMALLEST_SUM``; that can be seen
from W, and then the exact form runs (docs/math.md, section 5).
"""

from math import log

import jax.numpy as jnp
from jax import Array, lax

from lnpool._formulas.safe import log_ratio

# Measured (docs/math.md, section 5): below, quotients by p amplify rounding; above, p log(h/r) loses digits that the
# exact form keeps.
EXPONENTS = (0.5, 30.0)
SILENT = -1e12  # log of a zero linear state: its exponential is 0, and the cube that second derivatives hold a float32
FARTHEST = -1e4  # the least log(h/reference) of log states: no share, and second derivatives multiply its square by r
SMALLEST_SUM = 4e-18  # of W: what float32 cannot hold of its terms is then below 1e-20 of it
LARGEST_RATIO = 1e34  # of r to W: second derivatives hold it, times p and a direction


def in_range(p: Array) -> Array:
    """Where the single pass is as accurate as the exact form, as far as the exponent alone can tell."""
    return (p >= EXPONENTS[0]) & (p <= EXPONENTS[1])


def usable(p: Array) -> Array:
    """The exponent where it is in range, else 1: what is not chosen must still be finite, in its derivatives too."""
    return jnp.where(in_range(p), p, 1)


def silent_log_ratio(is_linear: bool, states: Array, reference: Array) -> Array:
    """d = log(h/reference) from h, or from log h; at a zero a number whose exponential is 0."""
    if not is_linear:
        return jnp.maximum(states - reference, FARTHEST)
    zero = states == 0
    return jnp.where(zero, SILENT, log_ratio(is_linear, states, zero, reference))


def smallest_sum(is_linear: bool, reference: Array, log_output: bool) -> Array:
    """The least W from which value and derivatives are accurate, as the reference bounds r."""
    if log_output:
        return jnp.full_like(reference, SMALLEST_SUM)
    bound = reference / LARGEST_RATIO if is_linear else jnp.exp(reference - log(LARGEST_RATIO))
    return lax.stop_gradient(jnp.fmax(bound, SMALLEST_SUM))


def sums(p: Array, d: Array, z: Array, log_v: Array, sharpen: bool) -> tuple[Array, Array]:
    """The summands of W and E."""
    terms = jnp.exp(p * d + log_v)
    return terms, terms * (d + z if sharpen else d)


def _as_constant(w: Array) -> tuple[Array, Array]:
    """c and u with W = c(1 + u), where c is W without a derivative, so that u is 0.

    Second derivatives of functions of u hold no 1/W^2, which would meet r before the terms that make up for it.
    """
    c = lax.stop_gradient(w)
    return c, (w - c) / c


def log_mean(p: Array, w: Array) -> Array:
    """rho = log(r/reference) from the sum W > 0."""
    c, u = _as_constant(w)
    return (jnp.log(c) + jnp.log1p(u)) / p


def slope(p: Array, w: Array, e: Array, rho: Array, mean_z: Array, sharpen: bool) -> Array:
    """dlog r/dp from the sums W > 0 and E."""
    c, u = _as_constant(w)
    return (e / c / (1 + u) - (mean_z if sharpen else 0) - rho) / p


def pooled(is_linear: bool, reference: Array, rho: Array, log_output: bool) -> Array:
    """r from the reference and rho, or log r, never through r."""
    if log_output:
        return (jnp.log(reference) if is_linear else reference) + rho
    half = jnp.exp(rho / 2)  # e^rho alone may overflow where r does not
    return reference * half * half if is_linear else jnp.exp(reference + rho)


def by_log_states(p: Array, d: Array, log_v: Array, rho: Array) -> Array:
    """dlog r/dlog h = w, the share of each token in the sum."""
    return jnp.exp(p * (d - rho) + log_v)


def by_states(p: Array, d: Array, log_v: Array, rho: Array) -> Array:
    """dr/dh = v (h/r)^(p-1); without bound at a zero for p < 1."""
    return jnp.exp((p - 1) * (d - rho) + log_v)
