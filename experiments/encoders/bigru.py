"""Gated recurrent units in both directions, after Cho et al. (EMNLP 2014)."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.layers import WordEmbedding, dropout
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class BiGRUOptions:
    """Word vectors, then a recurrent layer that reads both ways."""

    embedding: Annotated[int, Interval("[1, 4096]")] = 96
    """Size of a word vector."""
    features: Annotated[int, Interval("[1, 2048]")] = 64
    """Size of the state of one direction; a token's state holds both."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of words that training replaces by the unknown word."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Share of word-vector features that training hides."""


class BiGRU(nnx.Module):
    """One state a token, from all words before it and all words after it."""

    Options: ClassVar[type] = BiGRUOptions

    def __init__(self, options: BiGRUOptions, vocabulary_size: int, *, rngs: nnx.Rngs):
        hidden = options.features
        self.words = WordEmbedding(vocabulary_size, options.embedding, options.word_dropout, rngs=rngs)
        # The three gates of both directions: what the words say is computed for all tokens at once.
        self.inputs = nnx.Linear(options.embedding, 2 * 3 * hidden, rngs=rngs)
        orthogonal = nnx.initializers.orthogonal()
        gates = [[orthogonal(rngs.params(), (hidden, hidden)) for _ in range(3)] for _ in range(2)]
        self.recurrent = nnx.Param(jnp.stack([jnp.concatenate(direction, axis=1) for direction in gates]))
        self.bias = nnx.Param(jnp.zeros((2, 1, hidden)))
        self.dropout = options.dropout
        self.features = 2 * hidden

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B T D"]:
        """Return the forward and the backward state of every token."""
        words = dropout(self.words(tokens, rngs), self.dropout, rngs)
        B, T, _ = words.shape
        gates = self.inputs(words).reshape(B, T, 2, -1).transpose(1, 2, 0, 3)  # [T 2 B 3H]
        gates = jnp.stack([gates[:, 0], gates[::-1, 1]], axis=1)
        real = jnp.stack([mask.T, mask.T[::-1]], axis=1)[..., None]  # [T 2 B 1]

        def step(state: Float[Array, "2 B H"], at: tuple[Array, Array]) -> tuple[Array, Array]:
            said, keep = at
            recalled = state @ self.recurrent[...]
            reset, update, _ = jnp.split(jax.nn.sigmoid(said + recalled), 3, axis=-1)
            new = jnp.tanh(said[..., -H:] + reset * (recalled[..., -H:] + self.bias[...]))
            # Padding holds the state, so the backward direction starts at the last real token.
            state = jnp.where(keep, update * state + (1 - update) * new, state)
            return state, state

        H = self.features // 2
        _, states = jax.lax.scan(step, jnp.zeros((2, B, H), words.dtype), (gates, real))
        return jnp.concatenate([states[:, 0], states[::-1, 1]], axis=-1).swapaxes(0, 1)
