"""Dilated gated convolutions with a residual gate: the encoder of Su's programs for reading comprehension and triples.

Convolutions after Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions" (ICLR 2016), gates after
Dauphin et al., "Language Modeling with Gated Convolutional Networks" (ICML 2017).
"""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.masked import dropout, zero_padding
from experiments.layers.words import WordOptions

CYCLE = (1, 2, 5)
"""Dilations of the blocks of a cycle: their windows leave no word between them out."""
WINDOW = 3


@dataclasses.dataclass(frozen=True)
class DGCNNOptions(WordOptions):
    """Word vectors, a linear layer, then blocks with the dilations 1, 2, 5, again and again, and last of dilation 1."""

    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a state."""
    cycles: Annotated[int, Interval("[0, 64]")] = 3
    """How often there are blocks with the dilations 1, 2 and 5: each time widens the field by 16 words."""
    last: Annotated[int, Interval("[0, 64]")] = 3
    """Blocks of dilation 1 after these: each widens the field by 2 words."""
    gate_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Dropout rate of the logits of the gates; where one is dropped, the gate is half open."""

    gate_bias: Annotated[float, Interval("[-20, 20]")] = -2.0
    """Bias of the logits of the gates at the start; below 0 a block first changes little, so that the words come
    through many of them. With 0, as in Su's programs, each block halves the variance of the states."""

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of every block."""
        return CYCLE * self.cycles + (1,) * self.last

    @property
    def field(self) -> int:
        """How many words a state sees, its own in the middle: 1 + 2 sum of dilations, 55 with 3 cycles and 3 last."""
        return 1 + (WINDOW - 1) * sum(self.dilations)


class Block(nnx.Module):
    """y_t = (1 - g_t) x_t + g_t c_t with [c_t, l_t] = b + sum_k W_k x_(t + (k - 1) d), k = 0, 1, 2, g_t = sigmoid(l_t).

    The first half of the filters, c, is linear; the second half, l, are the logits of the gate, which decides for
    every feature how much of the state is new. With g = 0 the block changes nothing, with g = 1 it is a convolution.
    """

    def __init__(self, features: int, dilation: int, bias: float = 0.0, *, rngs: nnx.Rngs):
        self.convolution = nnx.Conv(
            features, 2 * features, (WINDOW,), padding="SAME", kernel_dilation=(dilation,), rngs=rngs
        )
        self.convolution.bias[...] = jnp.repeat(jnp.array([0.0, bias]), features)  # type: ignore[index]

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], rate: float, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T D"]:
        """Return the new states, 0 at padding; states at padding must be 0, as the windows at the edge see them."""
        new, logits = jnp.split(self.convolution(states), 2, axis=-1)
        gate = jax.nn.sigmoid(dropout(logits, rate, rngs))
        return zero_padding((1 - gate) * states + gate * new, mask)


class DGCNN(nnx.Module):
    """One state a word, of the `DGCNNOptions.field` words around it."""

    Options: ClassVar[type] = DGCNNOptions
    causal: ClassVar[bool] = False

    def __init__(self, options: DGCNNOptions, words: Words, *, rngs: nnx.Rngs):
        self.words = words
        self.inputs = nnx.Linear(words.features, options.features, rngs=rngs)
        self.blocks = nnx.List(
            Block(options.features, dilation, options.gate_bias, rngs=rngs) for dilation in options.dilations
        )
        self.dropout, self.gate_dropout = options.dropout, options.gate_dropout
        self.features = options.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every word."""
        words = dropout(self.words(tokens, rngs), self.dropout, rngs)
        states = zero_padding(self.inputs(words), mask)
        for block in self.blocks:
            states = block(states, mask, self.gate_dropout, rngs)
        return states, mask
