"""A decoder: recurrent layers whose normalisations a vector of the text modulates, then attention over its states.

After the sequence-to-sequence model of Su (2018, kexue.fm/archives/5861), with gated recurrent units for memories.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.layers.attention import full
from experiments.layers.masked import zero_padding

SLOPE = 0.2
"""The slope of the last layer below 0."""
Carried: TypeAlias = tuple[Float[Array, "B W H"], ...]
"""The state of every recurrent layer."""


class Memory(NamedTuple):
    """What the decoder needs of the texts; computed once, whatever is written."""

    keys: Float[Array, "B T N K"]
    values: Float[Array, "B T N K"]
    mask: Bool[Array, "B T"]
    scales: tuple[Float[Array, "B 1 D"], ...]
    """The factor of each normalisation."""
    shifts: tuple[Float[Array, "B 1 D"], ...]
    """What each normalisation adds."""


class Modulation(nnx.Module):
    """Factor 1 + W g and shift V g of a normalisation from g = relu(U r + b), r the vector of a text.

    Source: self-modulation of Chen, Lucic, Houlsby and Gelly (ICLR 2019), there of batch normalisation in a generator.
    """

    def __init__(self, features: int, hidden: int, normalised: int, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(features, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, 2 * normalised, rngs=rngs)

    def __call__(self, vector: Float[Array, "B E"]) -> tuple[Float[Array, "B 1 D"], Float[Array, "B 1 D"]]:
        """Return factor and shift."""
        scale, shift = jnp.split(self.out(jax.nn.relu(self.hidden(vector)))[:, None], 2, axis=-1)
        return 1 + scale, shift


def normalised(x: Float[Array, "B W D"], scale: Float[Array, "B 1 D"], shift: Float[Array, "B 1 D"]) -> Array:
    """Return the layer normalisation of x, modulated."""
    return scale * jax.nn.standardize(x, epsilon=1e-6) + shift


class Decoder(nnx.Module):
    """Word vectors to features of the next word.

    h_0 = word vector; h_k = GRU_k(norm(h_{k-1})), k = 1 ... layers; q = norm(h_layers); attention of q over the states
    of the text; features = V leaky_relu(U [q, attention]). A text without states gives an attention of 0.

    Args:
        words: size of a word vector, and of the features.
        states: size of a state of the text.
        vector: size of the vector of the text.
        hidden: size of the recurrent states; the heads of the attention divide it.
        layers: recurrent layers.
        heads: heads of the attention.
        modulation: hidden units between vector and normalisation.
        rngs: for the initial values.
    """

    def __init__(
        self,
        words: int,
        states: int,
        vector: int,
        *,
        hidden: int,
        layers: int,
        heads: int,
        modulation: int,
        rngs: nnx.Rngs,
    ):
        if hidden % heads:
            raise ValueError(f"{heads} heads do not divide {hidden} hidden units")
        self.heads, self.size = heads, hidden
        sizes = [words] + [hidden] * layers
        self.modulations = nnx.List([Modulation(vector, modulation, size, rngs=rngs) for size in sizes])
        self.cells = nnx.List([nnx.GRUCell(size, hidden, rngs=rngs) for size in sizes[:-1]])
        self.keys = nnx.Linear(states, hidden, use_bias=False, rngs=rngs)
        self.values = nnx.Linear(states, hidden, rngs=rngs)
        self.query = nnx.Linear(hidden, hidden, rngs=rngs)
        self.mix = nnx.Linear(2 * hidden, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, words, rngs=rngs)

    def memory(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], vector: Float[Array, "B E"]) -> Memory:
        """Return what is needed of the texts."""
        states = zero_padding(states, mask)
        modulated = [modulation(vector) for modulation in self.modulations]
        scales, shifts = zip(*modulated, strict=True)
        return Memory(self._by_head(self.keys(states)), self._by_head(self.values(states)), mask, scales, shifts)

    def start(self, texts: int | Array, width: int) -> Carried:
        """Return the first state of so many sequences a text."""
        return (jnp.zeros((texts, width, self.size)),) * len(self.cells)

    def recur(
        self, carried: Carried, vectors: Float[Array, "B W E"], memory: Memory
    ) -> tuple[Carried, Float[Array, "B W H"]]:
        """Return the next state of W sequences a text and the query of the attention, from the vector of a word."""
        x, new = vectors, []
        for cell, state, scale, shift in zip(self.cells, carried, memory.scales, memory.shifts, strict=False):
            state, x = cell(state, normalised(x, scale, shift))
            new.append(state)
        return tuple(new), normalised(x, memory.scales[-1], memory.shifts[-1])

    def read(self, queries: Float[Array, "B L H"], memory: Memory) -> Float[Array, "B L H"]:
        """Return the hidden layer of the next words, from queries at any number of places."""
        found = full(self._by_head(self.query(queries)), memory.keys, memory.values, memory.mask)
        both = jnp.concatenate([queries, found.reshape(queries.shape)], axis=-1)
        return jax.nn.leaky_relu(self.mix(both), SLOPE)

    def along(self, vectors: Float[Array, "B L E"], memory: Memory) -> Float[Array, "B L H"]:
        """Return the hidden layer of the next words after each word of a given sequence."""
        B = vectors.shape[0]

        def step(carried: Carried, word: Float[Array, "B E"]) -> tuple[Carried, Float[Array, "B H"]]:
            carried, query = self.recur(carried, word[:, None], memory)
            return carried, query[:, 0]

        _, queries = jax.lax.scan(step, self.start(B, 1), vectors.swapaxes(0, 1))
        return self.read(queries.swapaxes(0, 1), memory)

    def _by_head(self, x: Float[Array, "B T H"]) -> Float[Array, "B T N K"]:
        return x.reshape(*x.shape[:2], self.heads, -1)
