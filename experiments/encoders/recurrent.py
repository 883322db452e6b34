"""Recurrent encoders: one scan over the tokens, with the cell and the directions of the subclass (gru, lstm, ...)."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval
from experiments.layers.masked import dropout
from experiments.layers.words import WordOptions

State: TypeAlias = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class RecurrentOptions(WordOptions):
    """Word vectors, then a recurrent layer."""

    features: Annotated[int, Interval("[1, 2048]")] = 128
    """Size of the state of one direction; a token's state holds all directions."""


class Recurrent(nnx.Module):
    """One state a token, from all words before it and, with two directions, all words after it."""

    Options: ClassVar[type] = RecurrentOptions
    gates: ClassVar[int]
    carried: ClassVar[int]
    """Arrays that a cell hands to the next token; the first is the state."""
    directions: ClassVar[int]
    causal: ClassVar[bool] = False

    def __init__(self, options: RecurrentOptions, words: Words, *, rngs: nnx.Rngs):
        hidden = options.features
        self.words = words
        # The gates of all directions: what the words say is computed for all tokens at once.
        self.inputs = nnx.Linear(words.features, self.directions * self.gates * hidden, rngs=rngs)
        orthogonal = nnx.initializers.orthogonal()
        recurrent = [
            [orthogonal(rngs.params(), (hidden, hidden)) for _ in range(self.gates)] for _ in range(self.directions)
        ]
        self.recurrent = nnx.Param(jnp.stack([jnp.concatenate(direction, axis=1) for direction in recurrent]))
        self.dropout = options.dropout
        self.features = self.directions * hidden

    @abc.abstractmethod
    def cell(self, from_word: Float[Array, "N B G"], from_state: Float[Array, "N B G"], carried: State) -> State:
        """Return what the next token gets, from what comes from the word and from the state, gates side by side."""

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every token, the forward before the backward one."""
        words = dropout(self.words(tokens, rngs), self.dropout, rngs)
        B, T, _ = words.shape
        N = self.directions
        gates = self.inputs(words).reshape(B, T, N, -1).transpose(1, 2, 0, 3)  # [T N B G]
        gates = jnp.stack([gates[:: 1 - 2 * n, n] for n in range(N)], axis=1)
        real = jnp.stack([mask.T[:: 1 - 2 * n] for n in range(N)], axis=1)[..., None]  # [T N B 1]

        def step(carried: State, at: tuple[Array, Array]) -> tuple[State, Array]:
            from_word, keep = at
            new = self.cell(from_word, carried[0] @ self.recurrent[...], carried)
            # Padding holds the state, so the backward direction starts at the last real token.
            carried = tuple(jnp.where(keep, *pair) for pair in zip(new, carried, strict=True))
            return carried, carried[0]

        start = (jnp.zeros((N, B, self.features // N), words.dtype),) * self.carried
        _, states = jax.lax.scan(step, start, (gates, real))
        return jnp.concatenate([states[:: 1 - 2 * n, n] for n in range(N)], axis=-1).swapaxes(0, 1), mask


class GatedRecurrent(Recurrent):
    """The gated recurrent unit of Cho et al. (EMNLP 2014), the reset gate after the product."""

    gates = 3
    carried = 1

    def __init__(self, options: RecurrentOptions, words: Words, *, rngs: nnx.Rngs):
        super().__init__(options, words, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((self.directions, 1, options.features)))

    def cell(self, from_word: Float[Array, "N B G"], from_state: Float[Array, "N B G"], carried: State) -> State:
        """Return the state between the old one and the proposed one."""
        (state,) = carried
        H = state.shape[-1]
        reset, update, _ = jnp.split(jax.nn.sigmoid(from_word + from_state), 3, axis=-1)
        new = jnp.tanh(from_word[..., -H:] + reset * (from_state[..., -H:] + self.bias[...]))
        return (update * state + (1 - update) * new,)


@dataclasses.dataclass(frozen=True)
class LongShortTermOptions(RecurrentOptions):
    """Word vectors, then a recurrent layer; the sizes are those of Jain and Wallace (NAACL 2019)."""

    suggests: ClassVar[Mapping[str, Any]] = {"head": {"dropout": 0.5}, "optim": {"learning_rate": 1e-3}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    embedding: Annotated[int, Interval("[1, 4096]")] = 300
    """Size of a word vector; vectors that are read bring their own."""


class LongShortTerm(Recurrent):
    """The long short-term memory of Hochreiter and Schmidhuber (1997) with a forget gate, open at the start."""

    Options: ClassVar[type] = LongShortTermOptions
    gates = 4
    carried = 2

    def cell(self, from_word: Float[Array, "N B G"], from_state: Float[Array, "N B G"], carried: State) -> State:
        """Return the state and the memory behind it."""
        enter, forget, leave, new = jnp.split(from_word + from_state, 4, axis=-1)
        memory = jax.nn.sigmoid(forget + 1) * carried[1] + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return jax.nn.sigmoid(leave) * jnp.tanh(memory), memory


@dataclasses.dataclass(frozen=True)
class BiGRUOptions(RecurrentOptions):
    """Word vectors, then a recurrent layer that reads both ways."""

    features: Annotated[int, Interval("[1, 2048]")] = 64
    """Size of the state of one direction; a token's state holds both."""


class GRU(GatedRecurrent):
    """One state a token, from all words before it."""

    directions = 1
    causal = True


class LSTM(LongShortTerm):
    """One state a token, from all words before it."""

    directions = 1
    causal = True


class BiGRU(GatedRecurrent):
    """One state a token, from all words before it and all words after it."""

    Options: ClassVar[type] = BiGRUOptions
    directions = 2


class BiLSTM(LongShortTerm):
    """One state a token, from all words before it and all words after it (Graves and Schmidhuber, 2005)."""

    directions = 2
