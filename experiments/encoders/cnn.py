"""A convolution over word windows, after Kim, "Convolutional Neural Networks for Sentence Classification" (2014)."""

import dataclasses
from typing import Annotated, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.words import WordOptions, dropout, zero_padding


@dataclasses.dataclass(frozen=True)
class CNNOptions(WordOptions):
    """Word vectors, then one convolution."""

    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Number of filters, which is the size of a state."""
    width: Annotated[int, Interval("[1, 64]")] = 3
    """Words that one filter sees."""


class CNN(nnx.Module):
    """One state a position, made of the `width` words around it."""

    Options: ClassVar[type] = CNNOptions

    def __init__(self, options: CNNOptions, words: Words, *, rngs: nnx.Rngs):
        self.words = words
        self.convolution = nnx.Conv(words.features, options.features, (options.width,), padding="SAME", rngs=rngs)
        self.dropout = options.dropout
        self.features = options.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the filter responses around every word."""
        words = dropout(self.words(tokens, rngs), self.dropout, rngs)
        # A window at the edge of a text must see zeros, exactly as it does at the edge of the array.
        return self.convolution(zero_padding(words, mask)), mask
