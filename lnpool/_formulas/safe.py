"""How the formulas keep NaN, infinities and the derivative rules of JAX out of where they must not come."""

import jax.numpy as jnp
from jax import Array, lax

INFINITE = 1e30  # stands for an infinite exponent or score: large enough to be one, small enough to multiply
RATIO_RANGE = (1e-30, 1e30)  # where neither h/h_ref nor a derivative of it overflows or underflows in float32


def select(mask: Array | None, x: Array, otherwise: Array | float) -> Array:
    """``x`` at real tokens, ``otherwise`` at padding: what padding holds cannot pass, NaN included."""
    return x if mask is None else jnp.where(mask, x, otherwise)


def at_most(x: Array, bound: float) -> Array:
    """min(x, bound) with the derivative of x: for bounds that only rounding can cross."""
    return x - lax.stop_gradient(jnp.maximum(x - bound, 0))


def at_least(x: Array, bound: float) -> Array:
    """max(x, bound) with the derivative of x."""
    return x + lax.stop_gradient(jnp.maximum(bound - x, 0))


def within(x: Array, lower: Array, upper: Array) -> Array:
    """``x`` between two arrays with the derivative of x."""
    return x + lax.stop_gradient(jnp.clip(x, lower, upper) - x)


def cancelled(x: Array, at: Array) -> Array:
    """``x``, and 0 where only rounding is left of it, with the derivative of x everywhere."""
    return x - lax.stop_gradient(jnp.where(at, x, 0))


def equal_by_rounding(difference: Array, of: Array, at: Array | bool = True) -> Array:
    """A difference of two numbers of the size of ``of``, and 0 where it is no more than four roundings of them."""
    return cancelled(difference, at & (jnp.abs(difference) <= 2 * float(jnp.finfo(of.dtype).eps) * jnp.abs(of)))


def over(x: Array, p: Array, where: Array | bool = True) -> Array:
    """x/p, and x where p = 0 or not ``where``; derivatives by p hold dp/p/p and never 1/p^2, which may be no float."""
    p = jnp.where(p == 0, 1, p)
    log_p = jnp.log(jnp.abs(p))
    return x / lax.stop_gradient(jnp.where(where, p, 1)) * jnp.exp(lax.stop_gradient(log_p) - log_p)


def sign_of(p: Array) -> Array:
    """+1 for p >= 0, else -1."""
    return jnp.where(p >= 0, 1, -1).astype(p.dtype)


def finite(x: Array) -> Array:
    """An exponent or scores with +-inf replaced by a number that acts as one; infinite scores are then equal."""
    return jnp.clip(x, -INFINITE, INFINITE)


def log_ratio(is_linear: bool, states: Array, zero: Array, reference: Array) -> Array:
    """d = log(h/reference) from h, or from log h; something finite at a zero."""
    if not is_linear:
        return jnp.where(zero, 0, states) - reference
    # A ratio inside float range is exact near 1; outside of it the two logarithms are taken apart.
    ratio = states / reference
    ratio = ratio - lax.stop_gradient(jnp.where(states == reference, ratio - 1, 0))  # XLA may take 1/reference first
    inside = (ratio > RATIO_RANGE[0]) & (ratio < RATIO_RANGE[1])
    argument = jnp.where(zero, 1, jnp.where(inside, ratio, states))
    return jnp.log(argument) - jnp.where(inside | zero, 0, jnp.log(reference))
