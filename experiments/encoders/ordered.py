"""Ordered neurons: a recurrent layer whose units have an order, so that long spans are kept by the last ones.

Shen, Tan, Sordoni and Courville, "Ordered Neurons: Integrating Tree Structures into Recurrent Neural Networks" (ICLR
2019). The units are cut into chunks; those of a chunk share two master gates, which rise and fall with its number k:

    f~ = cumax(F)        i~ = 1 - cumax(I)        cumax(x)_k = sum_{j <= k} softmax(x)_j
    w = f~ i~            c_t = w (f c_{t-1} + i c^) + (f~ - w) c_{t-1} + (i~ - w) c^            h_t = o tanh(c_t)

where f, i, o and c^ are the gates and the new value of a long short-term memory. A word at which f~ is small erases
most chunks, which says that a large constituent ends before it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.masked import dropout
from experiments.layers.words import WordOptions

GATES = 4
"""Gates of a long short-term memory: out, new, in, forget."""


@dataclasses.dataclass(frozen=True)
class OrderedOptions(WordOptions):
    """Word vectors, then recurrent layers of ordered units."""

    suggests: ClassVar[Mapping[str, Any]] = {"optim": {"learning_rate": 1e-3}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a state, in every layer."""
    layers: Annotated[int, Interval("[1, 16]")] = 3
    """Number of layers; dropout is between them too."""
    chunks: Annotated[int, Interval("[1, 4096]")] = 16
    """Number of chunks of units, each with its own master gates; it divides the features."""
    variant: Literal["paper", "symmetric"] = "paper"
    """The master input gate of chunk k: paper is 1 - cumax, so that no word ever enters the last chunk; symmetric is
    the sum of the softmax from k on, so that a layer of one chunk is an ordinary long short-term memory."""


def cumax(x: Float[Array, "*B C"], *, reverse: bool = False) -> Float[Array, "*B C"]:
    """Return the sums of softmax(x) over the chunks up to each, or from each one on: numbers from 0 to 1."""
    return jax.lax.cumsum(jax.nn.softmax(x, axis=-1), axis=x.ndim - 1, reverse=reverse)


class OrderedLayer(nnx.Module):
    """One scan over the tokens."""

    def __init__(self, options: OrderedOptions, features: int, *, rngs: nnx.Rngs):
        hidden, chunks = options.features, options.chunks
        self.chunks, self.variant = chunks, options.variant
        # The master gates, input before forget, then the other gates: what words say, for all tokens at once.
        self.inputs = nnx.Linear(features, 2 * chunks + GATES * hidden, rngs=rngs)
        widths = [2 * chunks] + [hidden] * GATES
        orthogonal = nnx.initializers.orthogonal()
        blocks = [orthogonal(rngs.params(), (hidden, width)) for width in widths]
        self.recurrent = nnx.Param(jnp.concatenate(blocks, axis=1))

    def cell(
        self, gates: Float[Array, "B G"], memory: Float[Array, "B C S"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B C S"], Float[Array, "B"]]:
        """Return the state, the memory, and the level: the share of the memory that the word closes."""
        C = self.chunks
        entering, forgetting = gates[:, :C], gates[:, C : 2 * C]
        kept = cumax(forgetting)
        new = cumax(entering, reverse=True) if self.variant == "symmetric" else 1 - cumax(entering)
        # An open forget gate at the start, as in `recurrent.LongShortTerm`.
        leave, value, enter, forget = jnp.moveaxis(gates[:, 2 * C :].reshape(len(gates), GATES, C, -1), 1, 0)
        both = (kept * new)[..., None]
        forget = both * jax.nn.sigmoid(forget + 1) + kept[..., None] - both
        enter = both * jax.nn.sigmoid(enter) + new[..., None] - both
        memory = forget * memory + enter * jnp.tanh(value)
        state = jax.nn.sigmoid(leave) * jnp.tanh(memory)
        return state.reshape(len(gates), -1), memory, 1 - kept.mean(axis=-1)

    def __call__(
        self, vectors: Float[Array, "B T E"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T"]]:
        """Return the state and the level of every token."""
        B, C = len(vectors), self.chunks
        H = self.recurrent[...].shape[0]

        def step(carried: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
            from_word, keep = at
            state, memory, level = self.cell(from_word + carried[0] @ self.recurrent[...], carried[1])
            # Padding holds the state.
            state = jnp.where(keep[:, None], state, carried[0])
            memory = jnp.where(keep[:, None, None], memory, carried[1])
            return (state, memory), (state, level)

        start = jnp.zeros((B, H), vectors.dtype), jnp.zeros((B, C, H // C), vectors.dtype)
        _, (states, levels) = jax.lax.scan(step, start, (self.inputs(vectors).swapaxes(0, 1), mask.T))
        return states.swapaxes(0, 1), levels.T


class OrderedNeurons(nnx.Module):
    """One state a token, from all words before it; chunk k of a state is its k-th block of units."""

    Options: ClassVar[type] = OrderedOptions
    causal: ClassVar[bool] = True

    def __init__(self, options: OrderedOptions, words: Words, *, rngs: nnx.Rngs):
        if options.features % options.chunks:
            raise ValueError(f"chunks {options.chunks} must divide the features {options.features}")
        if options.chunks == 1 and options.variant == "paper":
            raise ValueError("with one chunk nothing enters the memory of the variant paper: choose symmetric")
        self.words, self.dropout = words, options.dropout
        sizes = [words.features] + [options.features] * (options.layers - 1)
        self.layers = nnx.List(OrderedLayer(options, size, rngs=rngs) for size in sizes)
        self.features = options.features

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every token after the last layer."""
        states = self.words(tokens, rngs)
        for layer in self.layers:
            states, _ = layer(dropout(states, self.dropout, rngs), mask)
        return states, mask

    def levels(self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"]) -> Float[Array, "L B T"]:
        """Return for every layer and token 1 - mean_k f~_k: the share of the chunks that the token closes.

        It is large where a large constituent ends before the token (equation 15 of the paper, but for its offset).
        """
        states, found = self.words(tokens), []
        for layer in self.layers:
            states, level = layer(states, mask)
            found.append(level)
        return jnp.stack(found)
