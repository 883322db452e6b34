"""Encoders without context: the states are the word vectors, or a layer on each; order is not seen."""

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.masked import dropout
from experiments.layers.words import VectorOptions, WordOptions


@dataclasses.dataclass(frozen=True)
class BagOptions(VectorOptions):
    """Bag of word vectors."""

    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a word vector; vectors that are read bring their own."""


class Bag(nnx.Module):
    """Word vectors as states."""

    Options: ClassVar[type] = BagOptions
    causal: ClassVar[bool] = True

    def __init__(self, options: BagOptions, words: Words, *, rngs: nnx.Rngs):
        self.words = words
        self.dropout = options.dropout
        self.features = words.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the vector of every word."""
        return dropout(self.words(tokens, rngs), self.dropout, rngs), mask


@dataclasses.dataclass(frozen=True)
class MLPOptions(WordOptions):
    """Word vectors, then one layer on each."""

    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a state."""


class MLP(nnx.Module):
    """h_i = tanh(W x_i + b): no word sees another one.

    It is the network "average" of Jain and Wallace (NAACL 2019), and the one with which Wiegreffe and Pinter (EMNLP
    2019) try the weights of other models.
    """

    Options: ClassVar[type] = MLPOptions
    causal: ClassVar[bool] = True

    def __init__(self, options: MLPOptions, words: Words, *, rngs: nnx.Rngs):
        self.words, self.dropout = words, options.dropout
        self.linear = nnx.Linear(words.features, options.features, rngs=rngs)
        self.features = options.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every word."""
        return jnp.tanh(self.linear(dropout(self.words(tokens, rngs), self.dropout, rngs))), mask
