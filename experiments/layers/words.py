"""Word vectors, and the options of them that every encoder begins with."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.data.text import UNKNOWN
from experiments.data.triples import SHAPES

RANDOM = "random"
SPREAD = 0.1  # standard deviation of random word vectors


@dataclasses.dataclass(frozen=True)
class VectorOptions:
    """Word vectors and the noise on them: what the options of every encoder begin with."""

    size_option: ClassVar[str] = "features"
    """The option that is the size of a word vector; vectors that are read bring their own."""
    reads_sentences: ClassVar[bool] = False
    """Whether the encoder reads batches of sentences."""
    vectors: str = RANDOM
    """Where word vectors start: random, glove, minilm (of packages), or a text file of GloVe, fastText or word2vec."""
    frozen: bool = False
    """Keep the word vectors as they start, rather than train them."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Word dropout: share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Dropout rate of the word vectors."""


@dataclasses.dataclass(frozen=True)
class WordOptions(VectorOptions):
    """Word vectors of their own size."""

    size_option: ClassVar[str] = "embedding"
    """The option that is the size of a word vector."""
    embedding: Annotated[int, Interval("[1, 4096]")] = 96
    """Size of a word vector; vectors that are read bring their own."""


class Frozen(nnx.Variable):
    """Numbers that are part of a model and of its file, and that no training changes."""


def freeze(module: nnx.Module) -> None:
    """Let no training change the parameters of a module."""
    for _, inner in [*nnx.iter_graph(module)]:
        if isinstance(inner, nnx.Module):
            for name, variable in [*vars(inner).items()]:
                if isinstance(variable, nnx.Param):
                    setattr(inner, name, Frozen(variable[...]))


class Scale(nnx.Variable):
    """Factors [B T] before the vectors of the words of a batch: with respect to them an analysis takes derivatives."""


class WordEmbedding(nnx.Module):
    """A vector a word. Training replaces some words by the unknown word, which so learns what an unseen word means."""

    scale: Scale | None = None
    """Factors before the word vectors; an analysis sets them."""

    def __init__(self, options: VectorOptions, vocabulary_size: int, *, rngs: nnx.Rngs):
        self.features: int = getattr(options, options.size_option)
        self.table = nnx.Embed(
            vocabulary_size, self.features, embedding_init=nnx.initializers.normal(SPREAD), rngs=rngs
        )
        if options.frozen:
            freeze(self.table)
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
        vectors = jnp.take(self.table.embedding[...], tokens, axis=0)  # nnx.Embed would return its first dtype always
        return vectors if self.scale is None else vectors * self.scale[...].reshape(*tokens.shape, 1)


class WrittenWords(nnx.Module):
    """The vector of a word beside one of how it is written, as in lower case: both are trained."""

    def __init__(self, words: Words, features: int, *, rngs: nnx.Rngs):
        self.words = words
        self.shapes = nnx.Embed(len(SHAPES), features, embedding_init=nnx.initializers.normal(SPREAD), rngs=rngs)
        self.features = words.features + features

    def __call__(self, tokens: Int[Array, "*S 2"], rngs: nnx.Rngs | None = None) -> Float[Array, "*S D"]:
        """Return the vectors of words, which are given by their number and that of the way they are written."""
        shapes = jnp.take(self.shapes.embedding[...], tokens[..., 1], axis=0)
        return jnp.concatenate([self.words(tokens[..., 0], rngs), shapes], axis=-1)
