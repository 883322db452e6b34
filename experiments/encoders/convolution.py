"""Convolutions over word windows, after Kim, "Convolutional Neural Networks for Sentence Classification" (2014)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.masked import dropout, zero_padding
from experiments.layers.words import WordOptions

WIDTHS = (3, 4, 5)


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
    causal: ClassVar[bool] = False

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


@dataclasses.dataclass(frozen=True)
class TextCNNOptions(WordOptions):
    """Word vectors, then convolutions over 3, 4 and 5 words; the defaults are Kim's, but for optimiser and epochs."""

    suggests: ClassVar[Mapping[str, Any]] = {
        "epochs": 16,
        "head": {"dropout": 0.5},
        "optim": {"learning_rate": 1e-3},
    }
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    embedding: Annotated[int, Interval("[1, 4096]")] = 300
    """Size of a word vector; vectors that are read bring their own."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.0
    """Word dropout: share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.0
    """Dropout rate of the word vectors."""
    features: Annotated[int, Interval("[1, 4096]")] = 100
    """Number of filters of one width; a state holds the responses of all."""


class TextCNN(nnx.Module):
    """One state a position, the responses of all filters; with max pooling this is Kim's model."""

    Options: ClassVar[type] = TextCNNOptions
    causal: ClassVar[bool] = False

    def __init__(self, options: TextCNNOptions, words: Words, *, rngs: nnx.Rngs):
        self.words = words
        self.convolutions = nnx.List(
            nnx.Conv(words.features, options.features, (width,), padding="SAME", rngs=rngs) for width in WIDTHS
        )
        self.dropout = options.dropout
        self.features = len(WIDTHS) * options.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the filter responses around every word, width by width."""
        words = dropout(self.words(tokens, rngs), self.dropout, rngs)
        # A window at the edge of a text must see zeros, exactly as it does at the edge of the array.
        words = zero_padding(words, mask)
        return jax.nn.relu(jnp.concatenate([convolve(words) for convolve in self.convolutions], axis=-1)), mask
