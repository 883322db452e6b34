"""Bounds of the information between parts of texts and summaries of texts, from the scores of a critic.

Source: Hjelm et al., "Learning deep representations by mutual information estimation and maximization" (ICLR 2019). A
critic scores pairs of a part c of a text and a summary z. A pair of one text is drawn from the joint distribution, a
pair of two texts from the product of the marginals; so a negative is never of the same text.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Batch
from experiments.layers.masked import masked_mean
from experiments.layers.normalised import LINEAR


class Estimate(NamedTuple):
    """What the scores of a text come to."""

    loss: Float[Array, " B"]
    bound: Float[Array, " B"]
    """Lower bound of a divergence, or of the mutual information, in nats, up to the noise of few texts."""


class Critic(nnx.Module):
    """T(c, z) = <f(c), g(z)> / sqrt(K), where f and g have a hidden layer with ReLU, and K numbers each.

    `normalise` says how the matrices of f and g are normalised (`experiments.layers.normalised.LINEAR`).
    """

    def __init__(self, part: int, summary: int, hidden: int, normalise: str = "none", *, rngs: nnx.Rngs):
        linear = LINEAR[normalise]
        self.part, self.summary = (
            nnx.Sequential(linear(size, hidden, rngs=rngs), jax.nn.relu, linear(hidden, hidden, rngs=rngs))
            for size in (part, summary)
        )

    def __call__(self, parts: Float[Array, "B T D"], summaries: Float[Array, "B E"]) -> Float[Array, "B T B"]:
        """Return the score of every part of every text with the summary of every text."""
        one, other = self.part(parts), self.summary(summaries)
        return jnp.einsum("itk,jk->itj", one, other) / one.shape[-1] ** 0.5


def different_texts(batch: Batch) -> Bool[Array, "B B"]:
    """Return whose summaries are negatives of a text: real texts with words, and not those of its own copy."""
    words = jnp.where(batch.mask, batch.tokens, 0).reshape(len(batch.tokens), -1)
    same = (words[:, None] == words[None]).all(axis=-1)
    return ~same & (words.any(axis=-1) & (batch.weights > 0))[None]


def jensen_shannon(scores: Float[Array, "B T B"], mask: Bool[Array, "B T"], others: Bool[Array, "B B"]) -> Estimate:
    """Return -E log s(T(c, z)) - E log(1 - s(T(c, z'))) with the logistic function s, and the bound of JS in nats.

    With the best critic T = log p(c, z) / p(c) p(z), the loss is 2 log 2 - 2 JS, where JS <= log 2 is the
    Jensen-Shannon divergence of the joint distribution from the product of the marginals; any other critic gives less.

    Args:
        scores: of part t of text i with the summary of text j.
        mask: the real parts.
        others: whether text j is a negative of text i.
    """
    positive = optax.sigmoid_binary_cross_entropy(_own(scores), jnp.ones(()))
    negative = optax.sigmoid_binary_cross_entropy(scores, jnp.zeros(()))
    counted = others[:, None]
    negative = jnp.where(counted, negative, 0).sum(axis=-1) / jnp.maximum(counted.sum(axis=-1), 1)
    loss = _mean(positive + negative, mask)
    return Estimate(loss, jnp.log(2.0) - loss / 2)


def info_nce(scores: Float[Array, "B T B"], mask: Bool[Array, "B T"], others: Bool[Array, "B B"]) -> Estimate:
    """Return the cross entropy of the right summary among n negatives, and log(n + 1) minus it, a bound of I in nats.

    Source: van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding" (2018), eq. 4.
    Arguments as for `jensen_shannon`.
    """
    candidates = others | jnp.eye(len(others), dtype=bool)
    losses = jax.nn.logsumexp(scores, axis=-1, where=candidates[:, None]) - _own(scores)
    loss = _mean(losses, mask)
    return Estimate(loss, jnp.log(candidates.sum(axis=-1)) - loss)


ESTIMATORS: dict[str, Callable[..., Estimate]] = {"jsd": jensen_shannon, "infonce": info_nce}


def gaussian_kl(mean: Float[Array, "*S"], log_variance: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Return KL(N(mean, variance) || N(0, 1)) in nats, number by number."""
    return (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance) / 2


def _own(scores: Float[Array, "B T B"]) -> Float[Array, "B T"]:
    """Return the scores of parts with the summary of their own text."""
    return jnp.diagonal(scores, axis1=0, axis2=2).T


def _mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, " B"]:
    return masked_mean(values[..., None], mask)[:, 0]
