"""The states are the word vectors: order is not seen."""

import dataclasses
from typing import Annotated, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.layers import WordEmbedding, dropout
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class BagOptions:
    """Bag of word vectors."""

    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a word vector."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Share of features that training hides."""


class Bag(nnx.Module):
    """Word vectors as states."""

    Options: ClassVar[type] = BagOptions

    def __init__(self, options: BagOptions, vocabulary_size: int, *, rngs: nnx.Rngs):
        self.words = WordEmbedding(vocabulary_size, options.features, options.word_dropout, rngs=rngs)
        self.dropout = options.dropout
        self.features = options.features

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T D"]:
        """Return the vector of every word."""
        return dropout(self.words(tokens, rngs), self.dropout, rngs)
