"""Three functions without the pole that their formula shows at 0, to any order of differentiation.

A formula such as expm1(s)/s is accurate away from 0, and 0/0 at it; guarding only the point leaves wrong second
derivatives. Each function here is a short Taylor polynomial near 0 and its formula elsewhere.
"""

from collections.abc import Callable
from math import factorial

import jax.numpy as jnp
from jax import Array


def _taylor(coefficient: Callable[[int], float], x: Array) -> Array:
    """The Taylor polynomial at 0 for |x| <= 1/2: 8 terms in float32, 18 in float64."""
    terms = 18 if x.dtype == jnp.float64 else 8
    total = jnp.full_like(x, coefficient(terms - 1))
    for k in reversed(range(terms - 1)):
        total = total * x + coefficient(k)
    return total


def _patched(formula: Callable[[Array], Array], coefficient: Callable[[int], float], radius: float, x: Array) -> Array:
    near = jnp.abs(x) < radius
    return jnp.where(near, _taylor(coefficient, jnp.where(near, x, 0)), formula(jnp.where(near, 1, x)))


def eta(s: Array) -> Array:
    """(e^s - 1)/s, which is 1 at 0."""
    return _patched(lambda s: jnp.expm1(s) / s, lambda k: 1 / factorial(k + 1), 0.5, s)


def log1p_ratio(x: Array) -> Array:
    """log(1 + x)/x, which is 1 at 0."""
    return _patched(lambda x: jnp.log1p(x) / x, lambda k: (-1) ** k / (k + 1), 0.1, x)


def psi(s: Array) -> Array:
    """(s e^s - e^s + 1)/s^2, which is 1/2 at 0; for |s| <= 1/2 only."""
    return _taylor(lambda k: (k + 1) / factorial(k + 2), s)
