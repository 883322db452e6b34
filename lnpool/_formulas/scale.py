"""Scale limiting: from signed encoder outputs x to log states log h, h >= 0, within known bounds.

Wu et al. (ACL 2020) rescale the input so that it is non-negative and large exponents cannot explode; they name the
step and not one function for it. The table below holds the usual choices. Every entry maps to log h directly, so that
the pooling never takes a logarithm of a rounded h, and carries its derivative, so that the backward pass of the
pooling applies it without storing anything.
"""

from collections.abc import Callable
from math import inf, log
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lnpool._types import ScaleLimitName

_CLIP_FLOOR = 1e-6  # relu_clip: a floor keeps log h finite; below it the state counts as silent


class ScaleLimit(NamedTuple):
    """One named limit: x -> log h, d log h / dx, the range of log h, with what it grows if not x, and if it is x."""

    log_states: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    log_range: tuple[float, float]
    order: Callable[[Array], Array] | None = None
    is_identity: bool = False


def _log_softplus(x: Array) -> Array:
    far = x < -20  # softplus(x) = e^x (1 - e^x/2 + ...): exp would underflow long before its logarithm does
    return jnp.where(far, x - jnp.exp(x) / 2, jnp.log(jax.nn.softplus(jnp.where(far, 0, x))))


def _d_log_softplus(x: Array) -> Array:
    far = x < -20
    safe = jnp.where(far, 0, x)
    return jnp.where(far, 1, jax.nn.sigmoid(safe) / jax.nn.softplus(safe))


def _log_abs(x: Array) -> Array:
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.abs(jnp.where(x == 0, 1, x))))


def _reciprocal(x: Array, keep: Array) -> Array:
    return jnp.where(keep, 1 / jnp.where(keep, x, 1), 0)


SCALE_LIMITS: dict[ScaleLimitName, ScaleLimit] = {
    # h = exp(tanh x): smooth, bounded on both sides, so the single-pass form applies
    "tanh": ScaleLimit(jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2, (-1.0, 1.0)),
    # h = sigmoid(x)
    "sigmoid": ScaleLimit(jax.nn.log_sigmoid, lambda x: jax.nn.sigmoid(-x), (-inf, 0.0)),
    # h = log(1 + exp(x))
    "softplus": ScaleLimit(_log_softplus, _d_log_softplus, (-inf, inf)),
    # h = min(max(x, 1e-6), 1)
    "relu_clip": ScaleLimit(
        lambda x: jnp.log(jnp.clip(x, _CLIP_FLOOR, 1)),
        lambda x: _reciprocal(x, (x > _CLIP_FLOOR) & (x < 1)),
        (log(_CLIP_FLOOR), 0.0),
    ),
    # h = |x|, with derivative 0 at 0
    "abs": ScaleLimit(_log_abs, lambda x: _reciprocal(x, x != 0), (-inf, inf), jnp.abs),
    # h = exp(x), unbounded: with log_output signed numbers in, signed numbers out
    "exp": ScaleLimit(lambda x: x, jnp.ones_like, (-inf, inf), is_identity=True),
}
