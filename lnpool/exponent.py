"""Parametrisations of the exponent: from an unconstrained trainable rho to p, and back for the initial value.

Learning p directly is fragile: one large step can take it below 0, where attention is inverted and a zero state stops
every gradient. ``softplus`` (Gulcehre et al. 2014) keeps p > 1, where all derivatives of the pooling are bounded;
``bounded`` keeps it in a box, for experiments with p < 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lnpool import _check


class Exponent(NamedTuple):
    """One parametrisation: p from rho, rho from p, and the open interval that p can take."""

    p: Callable[[Array], Array]
    rho: Callable[[Array], Array]
    interval: tuple[float, float]


def bounded(lower: float = 0.05, upper: float = 16.0) -> Exponent:
    """p in (lower, upper), a sigmoid between the two on a logarithmic scale.

    Args:
        lower: smallest exponent, above 0.
        upper: largest exponent, above ``lower``.

    Returns:
        The parametrisation.

    Raises:
        ValueError: the interval is empty or reaches 0.
    """
    _check.interval("bounded", lower, upper)
    start, width = math.log(lower), math.log(upper / lower)
    return Exponent(
        p=lambda rho: jnp.exp(start + width * jax.nn.sigmoid(rho)),
        rho=lambda p: jax.scipy.special.logit((jnp.log(p) - start) / width),
        interval=(lower, upper),
    )


EXPONENTS: dict[str, Exponent] = {
    # p = 1 + log(1 + e^rho)
    "softplus": Exponent(
        p=lambda rho: 1 + jax.nn.softplus(rho),
        rho=lambda p: p - 1 + jnp.log(-jnp.expm1(1 - p)),
        interval=(1.0, math.inf),
    ),
    "bounded": bounded(),
    # p = rho: for experts, with states that stay above 0
    "raw": Exponent(p=lambda rho: rho, rho=lambda p: p, interval=(-math.inf, math.inf)),
    # p = rho, and no gradient
    "fixed": Exponent(p=jax.lax.stop_gradient, rho=lambda p: p, interval=(-math.inf, math.inf)),
}
