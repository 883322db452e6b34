"""Small layers that several parts share; randomness always comes in as an argument, no layer hides a state."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.data.text import UNKNOWN
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class WordOptions:
    """Word vectors and the noise on them, for the encoders that read them."""

    embedding: Annotated[int, Interval("[1, 4096]")] = 96
    """Size of a word vector."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Share of word-vector features that training hides."""


def dropout(x: Float[Array, "*S"], rate: float, rngs: nnx.Rngs | None) -> Float[Array, "*S"]:
    """Zero each element with probability `rate` and rescale the others; without `rngs` return `x`."""
    if rngs is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def zero_padding(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """Replace padded positions by 0, so that nothing can leak from them."""
    return jnp.where(mask[..., None], x, 0)


def masked_mean(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Return the mean over the real tokens; 0 where a text has none."""
    return zero_padding(x, mask).sum(axis=1) / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)


def masked_softmax(scores: Float[Array, "B T *F"], mask: Bool[Array, "B T"]) -> Float[Array, "B T *F"]:
    """Return weights that sum to 1 over the real tokens, and are 0 at padding and in a text without tokens."""
    mask = mask.reshape(mask.shape + (1,) * (scores.ndim - 2))
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=1), 0)


class WordEmbedding(nnx.Module):
    """A vector a word. Training replaces some words by the unknown word, which so learns what an unseen word means."""

    def __init__(self, vocabulary_size: int, features: int, word_dropout: float, *, rngs: nnx.Rngs):
        self.table = nnx.Embed(vocabulary_size, features, embedding_init=nnx.initializers.normal(0.1), rngs=rngs)
        self.word_dropout = word_dropout

    def __call__(self, tokens: Int[Array, "B T"], rngs: nnx.Rngs | None = None) -> Float[Array, "B T D"]:
        """Return the vectors of the words."""
        if rngs is not None and self.word_dropout > 0:
            hide = jax.random.bernoulli(rngs.dropout(), self.word_dropout, tokens.shape)
            tokens = jnp.where(hide, UNKNOWN, tokens)
        return self.table(tokens)
