"""Small layers that several parts share; randomness always comes in as an argument, no layer hides a state."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.options import Interval
from experiments.data.text import UNKNOWN

RANDOM = "random"
SPREAD = 0.1  # standard deviation of random word vectors


@dataclasses.dataclass(frozen=True)
class VectorOptions:
    """Word vectors and the noise on them: what the options of every encoder begin with."""

    size_option: ClassVar[str] = "features"
    """The option that is the size of a word vector; vectors that are read bring their own."""
    reads_sentences: ClassVar[bool] = False
    """Whether the encoder needs the ends of sentences among the words."""
    vectors: str = RANDOM
    """Where word vectors start: random, glove, minilm (of packages), or a text file of GloVe, fastText or word2vec."""
    frozen: bool = False
    """Keep the word vectors as they start, rather than train them."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Share of word-vector features that training hides."""


@dataclasses.dataclass(frozen=True)
class WordOptions(VectorOptions):
    """Word vectors of their own size."""

    size_option: ClassVar[str] = "embedding"
    """The option that is the size of a word vector."""
    embedding: Annotated[int, Interval("[1, 4096]")] = 96
    """Size of a word vector; vectors that are read bring their own."""


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
    total = zero_padding(x, mask).sum(axis=1, dtype=jnp.promote_types(x.dtype, jnp.float32))
    return total / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)


def masked_softmax(scores: Float[Array, "B T *F"], mask: Bool[Array, "B T"]) -> Float[Array, "B T *F"]:
    """Return weights that sum to 1 over the real tokens, and are 0 at padding and in a text without tokens."""
    mask = mask.reshape(mask.shape + (1,) * (scores.ndim - 2))
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=1), 0)


class Frozen(nnx.Variable):
    """Numbers that are part of a model and of its file, and that no training changes."""


class WordEmbedding(nnx.Module):
    """A vector a word. Training replaces some words by the unknown word, which so learns what an unseen word means."""

    def __init__(self, options: VectorOptions, vocabulary_size: int, *, rngs: nnx.Rngs):
        self.features: int = getattr(options, options.size_option)
        self.table = nnx.Embed(
            vocabulary_size, self.features, embedding_init=nnx.initializers.normal(SPREAD), rngs=rngs
        )
        if options.frozen:
            self.table.embedding = Frozen(self.table.embedding[...])  # type: ignore[assignment]
        self.word_dropout = options.word_dropout
        self.found: float | None = None
        """Share of the vocabulary whose vectors were read; None where all are random."""

    def fill(self, rows: Int[np.ndarray, " N"], vectors: Float[np.ndarray, "N D"]) -> None:
        """Set vectors of some words; the random vectors of all others get the same spread (standard deviation)."""
        spread = self.table.embedding[...] * (vectors.std() / SPREAD)
        self.table.embedding[...] = spread.at[rows].set(vectors)

    def __call__(self, tokens: Int[Array, "*S"], rngs: nnx.Rngs | None = None) -> Float[Array, "*S D"]:
        """Return the vectors of the words."""
        if rngs is not None and self.word_dropout > 0:
            hide = jax.random.bernoulli(rngs.dropout(), self.word_dropout, tokens.shape)
            tokens = jnp.where(hide, UNKNOWN, tokens)
        return jnp.take(self.table.embedding[...], tokens, axis=0)  # nnx.Embed would return its first dtype always
