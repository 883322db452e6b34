"""Parametrisations of the exponent: from an unconstrained trainable rho to p, and back for the initial value.

Learning p directly is fragile: one large step can take it below 0, where attention is inverted and a zero state stops
every gradient. The others keep p inside of an interval, whatever step is taken:

    softplus   p = 1 + log(1 + e^rho)                        p > 1         all derivatives of the pooling are bounded
    positive   p = log(1 + e^rho)                            p > 0         from the mean (p -> 0) to the maximum
    bounded    p = exp(log .05 + sigmoid(rho) log(16/.05))   .05 < p < 16  no step leaves the box
    raw        p = rho                                       any real      for experts, with states above 0
    fixed      p = rho, and no gradient                      any, +-inf too

Example:
    >>> import lnpool
    >>> [round(float(parametrisation.p(0.0)), 3) for parametrisation in lnpool.exponent.EXPONENTS.values()]
    [1.693, 0.693, 0.894, 0.0, 0.0]

References:
    softplus: Gulcehre et al., "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks", ECML 2014.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from lnpool import _check

_STEEPEST = 15.0  # sigmoid(+-16.7) is 0 or 1 in float32, and has no slope
_SMALLEST = -87.0  # e^-87.4 is no longer a normal float32


class Exponent(NamedTuple):
    """One parametrisation.

    Attributes:
        p: from rho, an array of any shape, to the exponents of that shape.
        rho: from one exponent inside of the interval to rho, a finite Python float in double precision. An exponent
            that is nearer to an end than float32 can tell apart becomes one that still has a slope.
        interval: the open interval that p can take.
    """

    p: Callable[[ArrayLike], Array]
    rho: Callable[[float], float]
    interval: tuple[float, float]


def _inverse_softplus(y: float) -> float:
    """The x of y = log(1 + e^x), without cancellation for small y or overflow for large ones."""
    return max(y + math.log(-math.expm1(-y)), _SMALLEST)


def bounded(lower: float = 0.05, upper: float = 16.0) -> Exponent:
    """p in (lower, upper), a sigmoid between the two on a logarithmic scale.

    Args:
        lower: smallest exponent, above 0.
        upper: largest exponent, above ``lower``.

    Returns:
        The parametrisation.

    Raises:
        ValueError: the interval is empty or reaches 0.

    Example:
        >>> import lnpool
        >>> box = lnpool.exponent.bounded(0.5, 8.0)
        >>> round(float(box.p(box.rho(3.0))), 5), box.interval
        (3.0, (0.5, 8.0))
    """
    _check.interval("bounded", lower, upper)
    start, width = math.log(lower), math.log(upper / lower)

    def rho(p: float) -> float:
        share, rest = math.log(p / lower) / width, math.log(upper / p) / width
        return min(max(math.log(share) - math.log(rest), -_STEEPEST), _STEEPEST) if rest > 0 else _STEEPEST

    return Exponent(lambda rho: jnp.exp(start + width * jax.nn.sigmoid(rho)), rho, (lower, upper))


EXPONENTS: dict[str, Exponent] = {
    "softplus": Exponent(lambda rho: 1 + jax.nn.softplus(rho), lambda p: _inverse_softplus(p - 1), (1.0, math.inf)),
    # Not e^rho: both shrink alike, dp/drho = p for small p, but above 1 e^rho runs away where this one moves evenly.
    "positive": Exponent(jax.nn.softplus, _inverse_softplus, (0.0, math.inf)),
    "bounded": bounded(),
    "raw": Exponent(jnp.asarray, float, (-math.inf, math.inf)),
    "fixed": Exponent(lambda rho: jax.lax.stop_gradient(jnp.asarray(rho)), float, (-math.inf, math.inf)),
}
