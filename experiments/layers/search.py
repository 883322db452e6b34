"""Beam search: the most probable sequences that a model writes step by step, with a state that is carried along."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

Step = Callable[[Any, Int[Array, "B W"]], tuple[Any, Float[Array, "B W V"]]]
"""From a state, whose arrays begin with [B W], and the last words to the next state and log p of every next word."""


class Found(NamedTuple):
    """Sequences, the best one first."""

    words: Int[Array, "B W L"]
    """The words; after the end stands the end."""
    log_p: Float[Array, "B W"]
    """The sum of log p of the words, the end included; -inf where there are fewer sequences than asked for."""
    score: Float[Array, "B W"]
    """What they are ordered by."""


def beam(
    step: Step, state: Any, begin: Int[Array, " B"], *, width: int, length: int, end: int = 0, length_power: float = 0.0
) -> Found:
    """Return the sequences with the largest score log p / n^a that a search of bounded width finds.

    n counts the words of a sequence and its end. A sequence is finished by the end, or by its length. At every step the
    best `width` of all sequences are kept, finished ones as they are; with width 1 and a = 0 that is the greedy choice,
    and with a width of all sequences nothing is missed.

    Args:
        step: computes the next state and log p of the next word.
        state: the first state, arrays [B width ...].
        begin: the word before the first one.
        width: sequences of a text that are kept.
        length: words of a sequence at most.
        end: the word that ends a sequence.
        length_power: a; 0 compares sums, which favours short sequences, 1 compares means.
    """
    (B,) = begin.shape
    start = _Beam(
        jnp.full((B, width, length), end, jnp.int32),
        jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf), (B, width)),
        jnp.ones((B, width), jnp.int32),
        jnp.zeros((B, width), bool),
        jnp.broadcast_to(begin[:, None], (B, width)),
        state,
    )

    def unfinished(at: tuple[Array, _Beam]) -> Array:
        return (at[0] < length) & ~at[1].finished.all()

    def further(at: tuple[Array, _Beam]) -> tuple[Array, _Beam]:
        return at[0] + 1, _extended(at[1], step, at[0], end, length_power)

    _, found = jax.lax.while_loop(unfinished, further, (jnp.zeros((), jnp.int32), start))
    return Found(found.words, found.log_p, _scores(found.log_p, found.lengths, length_power))


class _Beam(NamedTuple):
    """The sequences of a search so far."""

    words: Int[Array, "B W L"]
    log_p: Float[Array, "B W"]
    lengths: Int[Array, "B W"]
    finished: Bool[Array, "B W"]
    last: Int[Array, "B W"]
    state: Any


def _scores(log_p: Array, lengths: Array, power: float) -> Array:
    return log_p / lengths.astype(log_p.dtype) ** power


def _extended(beam: _Beam, step: Step, at: Array, end: int, power: float) -> _Beam:
    """Return the best sequences of one word more; those that are finished stay as they are."""
    state, log_p = step(beam.state, beam.last)
    B, W, V = log_p.shape
    stays = jnp.where(jnp.arange(V) == end, 0.0, -jnp.inf)
    total = beam.log_p[..., None] + jnp.where(beam.finished[..., None], stays, log_p)
    lengths = jnp.where(beam.finished, beam.lengths, at + 1)
    _, place = jax.lax.top_k(_scores(total, lengths[..., None], power).reshape(B, W * V), W)
    parent, word = place // V, (place % V).astype(jnp.int32)

    def chosen(x: Array) -> Array:
        return jnp.take_along_axis(x, parent.reshape(B, W, *[1] * (x.ndim - 2)), axis=1)

    return _Beam(
        chosen(beam.words).at[:, :, at].set(word),
        jnp.take_along_axis(total.reshape(B, W * V), place, axis=1),
        chosen(lengths),
        chosen(beam.finished) | (word == end),
        word,
        jax.tree.map(chosen, state),
    )
