"""Losses of single examples, and distances of distributions; objectives take their means over a batch."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def cross_entropy(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    """Return -log softmax(logits)[label]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def total_variation(one: Float[Array, "*#B K"], other: Float[Array, "*#B K"]) -> Float[Array, "*B"]:
    """Return half the sum of absolute differences of two predictions, at most 1; of one number the absolute difference.

    Both are probabilities by class or tag, or one number each (K = 1).
    """
    apart = abs(one - other).sum(axis=-1)
    return apart if one.shape[-1] == 1 else apart / 2


def jensen_shannon(one: Float[Array, "*#B T"], other: Float[Array, "*#B T"]) -> Float[Array, "*B"]:
    """Return the Jensen-Shannon divergence H((a + b) / 2) - (H(a) + H(b)) / 2 in nats: 0 if equal, at most ln 2.

    A weight of 0 counts for nothing, in value and gradient. Source: Lin, "Divergence measures based on the Shannon
    entropy" (IEEE Transactions on Information Theory, 1991).
    """
    return entropy((one + other) / 2) - (entropy(one) + entropy(other)) / 2


def entropy(weights: Float[Array, "*B T"]) -> Float[Array, "*B"]:
    """Return -sum_i w_i log w_i in nats."""
    positive = jnp.where(weights > 0, weights, 1)
    return -(positive * jnp.log(positive)).sum(axis=-1)


SMALLEST = 1e-6
"""The weight below which a distribution that others are compared with is taken for this much."""


def kullback_leibler(one: Float[Array, "*#B T"], other: Float[Array, "*#B T"]) -> Float[Array, "*B"]:
    """Return sum_i a_i log(a_i / b_i) in nats, where b_i is at least 1e-6, so that it is at most log 1e6 = 13.8."""
    return -entropy(one) - (one * jnp.log(jnp.maximum(other, SMALLEST))).sum(axis=-1)
