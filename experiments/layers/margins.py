"""Losses of a cosine head with a margin: the cosine of the right class must be ahead of the others by more than before.

With unit vectors x and a unit row w_j a class, cos theta_j = x . w_j and y the right class,

    loss = -log( e^(s psi(theta_y)) / (e^(s psi(theta_y)) + sum_{j != y} e^(s cos theta_j)) ),  psi(theta) <= cos theta.

All logits are computed (the dense form), so the loss is at least 0 in float32 too: the largest term of the softmax is
exactly 1. psi is a function of the cosine, without an arc cosine, whose derivative has no bound.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from experiments.layers.losses import cross_entropy

_SHORTEST = 1e-24
"""Squared length below which a vector counts as having no direction."""


def unit(vectors: Float[Array, "*S D"], axis: int = -1) -> Float[Array, "*S D"]:
    """Return the vectors divided by their lengths; a vector of zeros stays one, with derivative 0."""
    squares = jnp.square(vectors).sum(axis=axis, keepdims=True)
    some = squares > _SHORTEST
    return jnp.where(some, vectors * jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)


def softmax(cosines: Float[Array, " *B"]) -> Float[Array, " *B"]:
    """Return psi = cos theta: no margin."""
    return cosines


def am_softmax(cosines: Float[Array, " *B"], margin: float) -> Float[Array, " *B"]:
    """Return psi = cos theta - m (AM-Softmax, Wang et al. 2018, equation 6; CosFace)."""
    return cosines - margin


def arcface(cosines: Float[Array, " *B"], margin: float) -> Float[Array, " *B"]:
    """Return psi = cos(theta + m) (ArcFace, Deng et al. 2019, equation 3), for m in radians.

    Where theta + m > pi, beyond which the cosine rises again, psi is cos theta - m sin m, as in the authors' program.
    """
    c = jnp.clip(cosines, -1, 1)
    square = (1 - c) * (1 + c)
    some = square > 0
    sine = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)
    turned = c * math.cos(margin) - sine * math.sin(margin)
    return jnp.where(c >= -math.cos(margin), turned, c - margin * math.sin(margin))


def a_softmax(cosines: Float[Array, " *B"], multiple: int) -> Float[Array, " *B"]:
    """Return psi = (-1)^k cos(m theta) - 2 k, where k is the whole part of m theta / pi (A-Softmax, Liu et al. 2017).

    cos(m theta) is the Chebyshev polynomial T_m of the cosine, by T_m = 2 c T_(m-1) - T_(m-2).
    """
    c = jnp.clip(cosines, -1, 1)
    before, polynomial = jnp.ones_like(c), c
    for _ in range(multiple - 1):
        before, polynomial = polynomial, 2 * c * polynomial - before
    k = sum((c <= math.cos(j * math.pi / multiple)).astype(c.dtype) for j in range(1, multiple)) + jnp.zeros_like(c)
    return jnp.where(k % 2 == 0, polynomial, -polynomial) - 2 * k


def simpler_a_softmax(cosines: Float[Array, " *B"]) -> Float[Array, " *B"]:
    """Return psi = min(cos 4 theta, cos theta), with cos 4 theta = 1 - 8 c^2 + 8 c^4."""
    square = jnp.square(jnp.clip(cosines, -1, 1))
    return jnp.minimum(1 - 8 * square + 8 * jnp.square(square), cosines)


def margin_loss(
    cosines: Float[Array, "B C"],
    labels: Int[Array, " B"],
    psi: Callable[[Float[Array, "B 1"]], Float[Array, "B 1"]],
    scale: float,
) -> Float[Array, " B"]:
    """Return the loss of every text.

    Args:
        cosines: of every text with every class.
        labels: the right classes.
        psi: what takes the place of the cosine of the right class.
        scale: s.
    """
    right = jnp.arange(cosines.shape[1]) == labels[:, None]
    target = psi(jnp.take_along_axis(cosines, labels[:, None], axis=1))
    return cross_entropy(scale * jnp.where(right, target, cosines), labels)
