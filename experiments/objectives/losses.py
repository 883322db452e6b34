"""Losses of single examples; tasks take their weighted means."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def cross_entropy(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    """Return -log softmax(logits)[label]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def weighted_mean(losses: Float[Array, " B"], weights: Float[Array, " B"]) -> Float[Array, ""]:
    """Return the mean over the rows of weight 1, and 0 where there is none."""
    return (weights * losses).sum() / jnp.maximum(weights.sum(), 1)
