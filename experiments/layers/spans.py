"""Runs of words by begin and end: from rows of triples to tags of words, and from probabilities of tags to runs.

Rows are those of `experiments.data.triples`: first and last word and type of the subject, predicate, the same of the
object. A subject or object has its begin at the first and its end at the last word; where mentions overlap, tags are
the union of theirs, and a begin is read with the nearest end.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.data.triples import NOWHERE

SUBJECT, KIND, PREDICATE, OBJECT = slice(0, 2), 2, 3, slice(4, 6)


def inside(spans: Int[Array, "B K 2"], mask: Bool[Array, "B T"]) -> Bool[Array, "B K T"]:
    """Return which words are in each run."""
    places = jnp.arange(mask.shape[1])
    return (places >= spans[..., :1]) & (places <= spans[..., 1:]) & mask[:, None]


def reached(spans: Int[Array, "B K 2"], mask: Bool[Array, "B T"]) -> Bool[Array, "B K T"]:
    """Return the real words, for runs that are somewhere."""
    return (spans[..., :1] != NOWHERE) & mask[:, None]


def distances(spans: Int[Array, "B K 2"], length: int) -> Int[Array, "B K T"]:
    """Return how far every word is from each run: below 0 before it, 0 in it, above 0 after it."""
    places = jnp.arange(length)
    return jnp.minimum(places - spans[..., :1], 0) + jnp.maximum(places - spans[..., 1:], 0)


def _ends(spans: Int[Array, "B M 2"], length: int) -> Float[Array, "B M T 2"]:
    """Return 1 where a run has its begin and where it has its end."""
    return jax.nn.one_hot(spans, length, axis=-2)


def _real(rows: Int[Array, "B M 7"], length: int) -> Bool[Array, "B M"]:
    """Return which rows are triples whose subject and object stand in the text, before its cut."""
    ends = jnp.concatenate([rows[..., SUBJECT], rows[..., OBJECT]], axis=-1)
    return (rows[..., PREDICATE] >= 0) & ((ends >= 0) & (ends < length)).all(axis=-1)


def subject_tags(rows: Int[Array, "B M 7"], mask: Bool[Array, "B T"]) -> Float[Array, "B T 2"]:
    """Return 1 where a subject of a triple begins, and where one ends."""
    return (_ends(rows[..., SUBJECT], mask.shape[1]) * _real(rows, mask.shape[1])[..., None, None]).max(axis=1)


def object_tags(
    rows: Int[Array, "B M 7"], subjects: Int[Array, "B K 2"], mask: Bool[Array, "B T"], predicates: int
) -> Float[Array, "B K T P 2"]:
    """Return 1 where an object of a subject and a predicate begins, and where one ends."""
    same = (rows[:, None, :, SUBJECT] == subjects[:, :, None]).all(axis=-1) & _real(rows, mask.shape[1])[:, None]
    predicate = jax.nn.one_hot(rows[..., PREDICATE], predicates)
    ends = _ends(rows[..., OBJECT], mask.shape[1])
    return jnp.minimum(jnp.einsum("bkm,bmp,bmte->bktpe", same.astype(jnp.float32), predicate, ends), 1)


def kinds(rows: Int[Array, "B M 7"], mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Return 1 + the type of the mention that a word is in, 0 where it is in none."""
    return (inside(rows[..., SUBJECT], mask) * (1 + rows[..., KIND, None])).max(axis=1)


def different(spans: Int[Array, "B M 2"], most: int) -> Int[Array, "B N 2"]:
    """Return the first `most` runs that are not equal to one before them, `NOWHERE` where there are fewer."""
    same = (spans[:, :, None] == spans[:, None]).all(axis=-1)
    new = ~jnp.tril(same, -1).any(axis=-1) & (spans[..., 0] != NOWHERE)
    some, places = jax.lax.top_k(new.astype(jnp.float32), min(most, spans.shape[1]))  # of equals the first ones
    return jnp.where(some[..., None] > 0, jnp.take_along_axis(spans, places[..., None], axis=1), NOWHERE)


def read(
    probabilities: Float[Array, "*S T 2"], mask: Bool[Array, "*S T"], begin: float, end: float, most: int
) -> tuple[Int[Array, "*S N 2"], Float[Array, "*S N"]]:
    """Return the runs whose begin and end are probable, and the product of the two probabilities; 0 where none is.

    A run begins at each word whose probability is above `begin`, and ends at the nearest one, from there on, whose
    probability is above `end`; where there is none, it is left out. The `most` with the largest products are returned.
    """
    length = mask.shape[-1]
    places = jnp.where((probabilities[..., 1] > end) & mask, jnp.arange(length), length)
    last = jax.lax.cummin(places, axis=places.ndim - 1, reverse=True)
    some = (probabilities[..., 0] > begin) & mask & (last < length)
    last = jnp.where(some, last, 0)
    chance = probabilities[..., 0] * jnp.take_along_axis(probabilities[..., 1], last, axis=-1)
    chance, first = jax.lax.top_k(jnp.where(some, chance, 0), min(most, length))
    spans = jnp.stack([first, jnp.take_along_axis(last, first, axis=-1)], axis=-1)
    return jnp.where(chance[..., None] > 0, spans, NOWHERE), chance


def kind(scores: Float[Array, "B T C"], spans: Int[Array, "B N 2"]) -> Int[Array, "B N"]:
    """Return the type of the largest sum over each run; column 0 of the scores, that of no type, does not count."""
    sums = jnp.pad(jnp.cumsum(scores, axis=1), ((0, 0), (1, 0), (0, 0)))
    before, after = (jnp.take_along_axis(sums, ends[..., None], axis=1) for ends in (spans[..., 0], spans[..., 1] + 1))
    return jnp.argmax((after - before)[..., 1:], axis=-1)
