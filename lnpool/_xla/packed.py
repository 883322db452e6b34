"""Texts that lie one behind the other, [N D] with sorted segment ids, as rows of equal length; and how sums meet.

Every text is cut into pieces of T tokens, the last one padded, and a text without a token is one piece of padding: at
most N/T + S rows for S texts of any lengths. Rows are gathered, and backward tokens are read where they lie, so that
nothing is scattered. Sums over a text are sums over its pieces, which lie one behind the other: a segmented scan over
the rows (Blelloch, "Prefix Sums and Their Applications", 1990), which keeps a NaN in its own text and adds in a fixed
order.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool._types import Packing, Tokens

_LARGEST, _MIDDLING, _SMALLEST = 256, 32, 8  # tokens of a piece


@functools.partial(jax.jit, static_argnums=1)
def cut(segment_ids: Array, num_segments: int) -> Packing:
    """Sorted ids [N] in [-1, S] -> pieces; a token whose id is not in [0, S) belongs to no text."""
    (tokens,) = segment_ids.shape
    size = _size(tokens, num_segments)
    texts = jnp.arange(num_segments + 1, dtype=segment_ids.dtype)
    if isinstance(tokens, int):
        bounds = jnp.searchsorted(segment_ids, texts).astype(jnp.int32)
    else:  # no search goes through the symbolic N of an export
        bounds = jnp.sum(segment_ids[None] < texts[:, None], axis=1, dtype=jnp.int32)
    start, count = bounds[:-1], jnp.diff(bounds)
    parts = jnp.maximum((count + size - 1) // size, 1)
    ends = jnp.cumsum(parts, dtype=jnp.int32)  # of the rows of each text
    first = ends - parts
    rows = jnp.arange(tokens // size + num_segments, dtype=jnp.int32)
    text = jnp.minimum(jnp.searchsorted(ends, rows, side="right"), num_segments - 1).astype(jnp.int32)
    inside = (rows - first[text])[:, None] * size + jnp.arange(size, dtype=jnp.int32)[None]
    source = jnp.minimum(start[text][:, None] + inside, tokens - 1)
    owner = jnp.clip(segment_ids, 0, num_segments - 1).astype(jnp.int32)
    return Packing(
        source=source,
        mask=inside < count[text][:, None],
        owned=segment_ids == owner,
        owner=owner,
        text=text,
        last=ends - 1,
        start=start,
    )


def _size(tokens: int, num_segments: int) -> int:
    """Tokens of a piece: a power of two near half of the mean length, or a middling one for a symbolic N."""
    if not isinstance(tokens, int):
        return _MIDDLING
    size = _SMALLEST
    while size < _LARGEST and 2 * size * num_segments < tokens:
        size *= 2
    return size


def rows(packing: Packing, x: Array) -> Array:
    """Packed [1 N ...] -> rows [B T ...]."""
    return x[0, packing.source]


def real(packing: Packing, of: Tokens) -> Array:
    """Which packed tokens [1 N *1 1] belong to a text."""
    owned = _wide(packing.owned, of.scores[0])[None]
    return owned if of.mask is None else owned & of.mask


def combine(packing: Packing, x: Array, operation: Callable[[Array, Array], Array]) -> Array:
    """The operation over all rows of each text: [B 1 ...] -> [S 1 ...]."""

    def step(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        (starts, before), (begins, here) = left, right
        return starts | begins, jnp.where(begins, here, operation(before, here))

    if not isinstance(x.shape[0], int):  # of an export with a symbolic N, which no scan of its kind takes
        segments = jax.ops.segment_sum if operation is jnp.add else jax.ops.segment_max
        return segments(x, packing.text, packing.last.size, indices_are_sorted=True)
    begins = jnp.concatenate([jnp.ones(1, bool), packing.text[1:] != packing.text[:-1]])
    _, running = lax.associative_scan(step, (_wide(begins, x), x))
    return running[packing.last]


def _wide(flags: Array, like: Array) -> Array:
    return flags.reshape(-1, *(1,) * (like.ndim - 1))
