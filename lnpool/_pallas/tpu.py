"""The kernels for TPU: tokens innermost in the grid, running sums in VMEM, where texts lie prefetched.

Arguments, all with a row axis B, so that vmap makes a bigger batch, and S texts in each row:

    states [B T D]    scores [B H T] float32, -inf at padding    where int32    rows [B S R D] float32

A row is one text, and ``where`` its length [B], the index of its last real token + 1: blocks behind it are neither
fetched nor computed; padding before it is masked, so a mask need not be a prefix. Or a row holds packed texts, and
``where`` is the first token of each [B S], sorted: a step of the grid is what one text has in one block, so that a
block, which texts may share, is fetched once and its gradient written once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lnpool._pallas import compat, tiling
from lnpool._pallas.grid import Walk, visits, walk_over
from lnpool._pallas.online import Result, Row, Sums, absorb, fields, gradients, merge, packed, unpacked, unstacked
from lnpool._pallas.tiling import SLOTS, Tiling
from lnpool._types import Call

Ref = Any  # a reference to memory of the device

MAX_HEADS = 16  # scores of heads are spread over the features by one select a head
_MOST_STEPS = 100_000  # of packed texts: eight bytes each of the scalar memory, which has 1 MiB


def unsupported(states: jax.ShapeDtypeStruct, heads: int, texts: int | None) -> str | None:
    """Why these kernels cannot take such states [B T D], with packed ``texts`` in each row; None where they can."""
    if states.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the TPU kernels take float32 and bfloat16 states, not {states.dtype}."
    if heads > MAX_HEADS:
        return f"the TPU kernels take at most {MAX_HEADS} heads, not {heads}."
    batch, tokens, features = states.shape
    tiles = tiling.tile(tokens, features, states.dtype.itemsize, False) if features else None
    if tiles is None:
        return f"a block of {features} features does not fit into VMEM; pad them to a multiple of {tiling.LANES}."
    if texts and batch * (tiles.token_blocks + texts) > _MOST_STEPS:
        return f"the TPU kernels take at most {_MOST_STEPS} packed texts and blocks of tokens, and these are more."
    return None


def _owners(heads: int, size: int, tiles: Tiling, feature_block: Array) -> list[Array]:
    """For each head of ``size`` features, which of the block [1 D] it owns."""
    column = lax.broadcasted_iota(jnp.int32, (1, tiles.features), 1) + feature_block * tiles.features
    return [(column >= k * size) & (column < (k + 1) * size) for k in range(heads)]


def _tokens(
    states: Ref, scores: Ref, owned: list[Array], chunk: Array, size: int, span: tuple[Array, Array]
) -> tuple[Array, Array]:
    """A chunk of states and scores as [N SLOTS D] and [N SLOTS 1|D], -inf outside of the span."""
    start = pl.multiple_of(chunk * size, size)
    place = start + lax.broadcasted_iota(jnp.int32, (size, 1), 0)
    z = jnp.where((place >= span[0]) & (place < span[1]), scores[pl.ds(start, size), :], -jnp.inf)
    if len(owned) > 1:
        wide = z[:, :1]
        for k, mine in enumerate(owned):
            wide = jnp.where(mine, z[:, k : k + 1], wide)
        z = wide
    raw = states[0, pl.ds(start, size), :].astype(jnp.float32)
    return raw.reshape(-1, SLOTS, raw.shape[1]), z.reshape(-1, SLOTS, z.shape[1])


def _chunks(span: tuple[Array, Array], size: int) -> tuple[Array, Array]:
    """The first chunk that holds a token of the span, and the one behind the last."""
    start, stop = span
    return start // size, jnp.where(stop > start, (stop + (size - 1)) // size, 0)


def _sums_kernel(*refs: Ref, call: Call, slope: bool, heads: int, size: int, walk: Walk) -> None:
    *where, states, scores, rows, out, columns, kept = refs
    row_index, feature_block, step = (pl.program_id(axis) for axis in range(3))
    row, tiles = unstacked(Row, lambda k: rows[:, k : k + 1, :]), walk.tiles
    initial = fields(call, slope)
    is_first, is_last = visits(lambda k: walk.text(row_index, k, *where), step, walk.steps)
    is_new = visits(lambda k: walk.fetched(row_index, k, *where), step, walk.steps)[0]
    span = walk.span(row_index, step, *where)

    @pl.when(is_first)
    def _() -> None:
        for k, x in enumerate(initial.values()):
            kept[k] = jnp.full(kept.shape[1:], x, jnp.float32)

    @pl.when(is_new)
    def _() -> None:
        columns[...] = scores[0, 0].T

    owned = _owners(heads, size, tiles, feature_block)

    def absorbed(i: Array, sums: Sums) -> Sums:
        return absorb(call, row, sums, [_tokens(states, columns, owned, i, tiles.chunk, span)])

    before = unpacked(initial, (kept[k : k + 1] for k in range(len(initial))))
    after = lax.fori_loop(*_chunks(span, tiles.chunk), absorbed, before)
    for k, x in enumerate(packed(after)):
        kept[k : k + 1] = x

    @pl.when(is_last)
    def _() -> None:
        for k, x in enumerate(packed(merge(call, row, after))):
            out[:, k : k + 1, :] = x


def _gradients_kernel(*refs: Ref, call: Call, heads: int, size: int, walk: Walk) -> None:
    *where, states, scores, rows, dstates, dscores, columns, sums = refs
    row_index, feature_block, step = (pl.program_id(axis) for axis in range(3))
    row = unstacked(Result, lambda k: rows[:, k : k + 1, :])
    is_first, is_last = visits(lambda k: walk.written(row_index, k, *where), step, walk.steps)
    is_new = visits(lambda k: walk.fetched(row_index, k, *where), step, walk.steps)[0]
    span, tiles = walk.span(row_index, step, *where), walk.tiles

    @pl.when(is_new)
    def _() -> None:
        columns[...] = scores[0, 0].T

    @pl.when(is_first)
    def _() -> None:
        dstates[...] = jnp.zeros(dstates.shape, dstates.dtype)
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    owned = _owners(heads, size, tiles, feature_block)

    def spread(i: Array, carry: None) -> None:
        at = pl.ds(pl.multiple_of(i * tiles.chunk, tiles.chunk), tiles.chunk)
        raw, z = _tokens(states, columns, owned, i, tiles.chunk, span)
        by_states, by_scores = gradients(call, row, raw, z)  # 0 outside of the span
        by_states = dstates[0, at, :].astype(jnp.float32) + by_states.reshape(tiles.chunk, tiles.features)
        dstates[0, at, :] = by_states.astype(dstates.dtype)
        by_scores = by_scores.reshape(tiles.chunk, tiles.features)
        parts = [by_scores] if heads == 1 else [jnp.where(mine, by_scores, 0) for mine in owned]
        for k, part in enumerate(parts):
            sums[at, k : k + 1] += jnp.sum(part, axis=1, keepdims=True)

    lax.fori_loop(*_chunks(span, tiles.chunk), spread, None)

    @pl.when(is_last)
    def _() -> None:
        dscores[0, 0, 0] = sums[...].T


def _cost(states: Array, passes: int, exponentials: int) -> pl.CostEstimate:
    """What XLA schedules by: the bytes of dense rows."""
    return pl.CostEstimate(
        flops=32 * states.size,
        transcendentals=exponentials * states.size,
        bytes_accessed=passes * states.size * states.dtype.itemsize,
    )


def _blocked(scores: Array, tiles: Tiling) -> Array:
    """Scores [B H T] as [B token_blocks H tokens of a block], -inf behind the end: any block size is then aligned."""
    batch, heads, tokens = scores.shape
    more = tiles.token_blocks * tiles.tokens - tokens
    scores = jnp.pad(scores, ((0, 0), (0, 0), (0, more)), constant_values=-jnp.inf)
    return scores.reshape(batch, heads, tiles.token_blocks, tiles.tokens).transpose(0, 2, 1, 3)


def _grid(
    walk: Walk, where: tuple[Array, ...], states: Array, heads: int, fields: int, **outputs: Any
) -> pltpu.PrefetchScalarGridSpec:
    """Rows, blocks of features, steps; states, scores and ``fields`` of each text in."""
    tiles = walk.tiles

    def block(b: Array, d: Array, k: Array, *where: Ref) -> tuple[Array, Array, Array]:
        return b, walk.fetched(b, k, *where), d

    def score_block(b: Array, d: Array, k: Array, *where: Ref) -> tuple[Array, Array, int, int]:
        return b, walk.fetched(b, k, *where), 0, 0

    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=len(where),
        grid=(states.shape[0], tiles.feature_blocks, walk.steps),
        in_specs=[
            pl.BlockSpec((1, tiles.tokens, tiles.features), block),
            pl.BlockSpec((1, 1, heads, tiles.tokens), score_block),
            _of_text(walk, fields),
        ],
        **outputs,
    )


def _of_text(walk: Walk, fields: int) -> pl.BlockSpec:
    """Some fields of the text of a step."""

    def block(b: Array, d: Array, k: Array, *where: Ref) -> tuple[Array, Array, int, Array]:
        return b, walk.text(b, k, *where), 0, d

    return pl.BlockSpec((None, 1, fields, walk.tiles.features), block)


_COMPILER = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"))


def sums(call: Call, slope: bool, ragged: bool, states: Array, scores: Array, where: Array, rows: Array) -> Array:
    """The fields of ``Sums`` [B S F D] of every text; ``rows`` holds a ``Row`` each."""
    (batch, _, features), heads, texts = states.shape, scores.shape[1], rows.shape[1]
    (walk, prefetched), count = walk_over(states, ragged, where), len(fields(call, slope))
    tiles, args = walk.tiles, (*prefetched, states, _blocked(scores, walk.tiles), rows)
    grid = _grid(
        walk, prefetched, states, heads, len(Row._fields),
        out_specs=_of_text(walk, count),
        scratch_shapes=[
            pltpu.VMEM((tiles.tokens, heads), jnp.float32),
            pltpu.VMEM((count, SLOTS, tiles.features), jnp.float32),
        ],
    )  # fmt: skip
    return pl.pallas_call(
        functools.partial(_sums_kernel, call=call, slope=slope, heads=heads, size=features // heads, walk=walk),
        out_shape=compat.output((batch, texts, count, features), jnp.dtype("float32"), *args),
        grid_spec=grid,
        compiler_params=_COMPILER,
        cost_estimate=_cost(states, 1, 1),
        interpret=compat.current_target().interpret,
        name="lnpool_sums",
    )(*args)


def pullback(call: Call, ragged: bool, states: Array, scores: Array, where: Array, rows: Array) -> tuple[Array, Array]:
    """Cotangents of the states [B T D] and scores [B H T]; ``rows`` a ``Result`` each."""
    (batch, tokens, features), heads = states.shape, scores.shape[1]
    walk, prefetched = walk_over(states, ragged, where)
    tiles, args = walk.tiles, (*prefetched, states, _blocked(scores, walk.tiles), rows)

    def block(b: Array, d: Array, k: Array, *where: Ref) -> tuple[Array, Array, Array]:
        return b, walk.written(b, k, *where), d

    def score_block(b: Array, d: Array, k: Array, *where: Ref) -> tuple[Array, Array, Array, int, int]:
        return b, d, walk.written(b, k, *where), 0, 0

    grid = _grid(
        walk, prefetched, states, heads, len(Result._fields),
        out_specs=[
            pl.BlockSpec((1, tiles.tokens, tiles.features), block),
            pl.BlockSpec((1, 1, 1, heads, tiles.tokens), score_block),
        ],
        scratch_shapes=[pltpu.VMEM((tiles.tokens, heads), jnp.float32) for _ in range(2)],
    )  # fmt: skip
    by_block = (batch, tiles.feature_blocks, tiles.token_blocks, heads, tiles.tokens)
    dstates, dscores = pl.pallas_call(
        functools.partial(_gradients_kernel, call=call, heads=heads, size=features // heads, walk=walk),
        out_shape=[
            compat.output(states.shape, states.dtype, *args),
            compat.output(by_block, jnp.dtype("float32"), *args),
        ],
        grid_spec=grid,
        compiler_params=_COMPILER,
        cost_estimate=_cost(states, 2, 2),
        interpret=compat.current_target().interpret,
        name="lnpool_gradients",
    )(*args)
    dscores = jnp.sum(dscores, axis=1).transpose(0, 2, 1, 3)
    return dstates, dscores.reshape(batch, heads, -1)[:, :, :tokens]
