"""The kernels for TPU: tokens innermost in the grid, running sums in VMEM, lengths prefetched.

Arguments, all with a row axis B, so that vmap makes a bigger batch:

    states [B T D]    scores [B H T] float32, -inf at padding    lengths [B] int32    rows [B R D] float32

``lengths`` is the index of the last real token + 1. Blocks behind it are neither fetched nor computed; padding before
it is masked, so a mask need not be a prefix.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from lnpool._kernels import _compat, tiling
from lnpool._kernels._elements import Result, Row, Sums, absorb, fields, gradients, merge, packed, unpacked
from lnpool._kernels.tiling import SLOTS, Tiling
from lnpool._types import Call

Ref = Any  # a reference to memory of the device

MAX_HEADS = 16  # scores of heads are spread over the features by one select a head


def unsupported(states: jax.ShapeDtypeStruct, heads: int) -> str | None:
    """Why these kernels cannot take such states [B T D]; None where they can."""
    if states.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the TPU kernels take float32 and bfloat16 states, not {states.dtype}."
    if heads > MAX_HEADS:
        return f"the TPU kernels take at most {MAX_HEADS} heads, not {heads}."
    tokens, features = states.shape[1:]
    if features == 0 or tiling.tile(tokens, features, states.dtype.itemsize, False) is None:
        return f"a block of {features} features does not fit into VMEM; pad them to a multiple of {tiling.LANES}."
    return None


def _owners(heads: int, size: int, tiles: Tiling, feature_block: Array) -> list[Array]:
    """For each head of ``size`` features, which of the block [1 D] it owns."""
    column = lax.broadcasted_iota(jnp.int32, (1, tiles.features), 1) + feature_block * tiles.features
    return [(column >= k * size) & (column < (k + 1) * size) for k in range(heads)]


def _tokens(states: Ref, scores: Ref, owned: list[Array], start: Array, chunk: int) -> tuple[Array, Array]:
    """A chunk of states and scores as [N SLOTS D] and [N SLOTS 1|D]."""
    at = pl.ds(pl.multiple_of(start, chunk), chunk)
    z = scores[at, :]
    if len(owned) > 1:
        wide = z[:, :1]
        for k, mine in enumerate(owned):
            wide = jnp.where(mine, z[:, k : k + 1], wide)
        z = wide
    raw = states[0, at, :].astype(jnp.float32)
    return raw.reshape(-1, SLOTS, raw.shape[1]), z.reshape(-1, SLOTS, z.shape[1])


def _sums_kernel(
    lengths: Ref, states: Ref, scores: Ref, rows: Ref, out: Ref, columns: Ref, kept: Ref,
    *, call: Call, slope: bool, heads: int, size: int, tiles: Tiling,
) -> None:  # fmt: skip
    row_index, feature_block, token_block = (pl.program_id(axis) for axis in range(3))
    row = Row(rows[:, :1, :], rows[:, 1:, :])
    initial = fields(call, slope)

    @pl.when(token_block == 0)
    def _() -> None:
        for k, x in enumerate(initial.values()):
            kept[k] = jnp.full(kept.shape[1:], x, jnp.float32)

    left = lengths[row_index] - token_block * tiles.tokens

    @pl.when(left > 0)
    def _() -> None:
        columns[...] = scores[0, 0].T
        owned = _owners(heads, size, tiles, feature_block)

        def step(i: Array, sums: Sums) -> Sums:
            return absorb(call, row, sums, [_tokens(states, columns, owned, i * tiles.chunk, tiles.chunk)])

        chunks = (jnp.minimum(left, tiles.tokens) + (tiles.chunk - 1)) // tiles.chunk
        after = lax.fori_loop(
            jnp.int32(0), chunks, step, unpacked(initial, (kept[k : k + 1] for k in range(len(initial))))
        )
        for k, x in enumerate(packed(after)):
            kept[k : k + 1] = x

    @pl.when(token_block == tiles.token_blocks - 1)
    def _() -> None:
        whole = merge(call, row, unpacked(initial, (kept[k : k + 1] for k in range(len(initial)))))
        for k, x in enumerate(packed(whole)):
            out[:, k : k + 1, :] = x


def _gradients_kernel(
    lengths: Ref, states: Ref, scores: Ref, rows: Ref, dstates: Ref, dscores: Ref, columns: Ref, sums: Ref,
    *, call: Call, heads: int, size: int, tiles: Tiling,
) -> None:  # fmt: skip
    row_index, token_block, feature_block = (pl.program_id(axis) for axis in range(3))
    row, result = Row(rows[:, :1, :], rows[:, 1:2, :]), Result(*(rows[:, k : k + 1, :] for k in range(2, 6)))
    active = token_block * tiles.tokens < lengths[row_index]

    @pl.when(feature_block == 0)
    def _() -> None:
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    @pl.when(~active)
    def _() -> None:
        dstates[...] = jnp.zeros(dstates.shape, dstates.dtype)

    @pl.when(active)
    def _() -> None:
        columns[...] = scores[0, 0].T
        owned = _owners(heads, size, tiles, feature_block)

        def step(i: Array, carry: None) -> None:
            at = pl.ds(pl.multiple_of(i * tiles.chunk, tiles.chunk), tiles.chunk)
            raw, z = _tokens(states, columns, owned, i * tiles.chunk, tiles.chunk)
            by_states, by_scores = gradients(call, row, result, raw, z)
            dstates[0, at, :] = by_states.reshape(tiles.chunk, tiles.features).astype(dstates.dtype)
            by_scores = by_scores.reshape(tiles.chunk, tiles.features)
            parts = [by_scores] if heads == 1 else [jnp.where(mine, by_scores, 0) for mine in owned]
            for k, part in enumerate(parts):
                sums[at, k : k + 1] += jnp.sum(part, axis=1, keepdims=True)

        lax.fori_loop(jnp.int32(0), jnp.int32(tiles.tokens // tiles.chunk), step, None)

    @pl.when(feature_block == tiles.feature_blocks - 1)
    def _() -> None:
        dscores[0, 0] = sums[...].T


def _cost(states: Array, passes: int, exponentials: int) -> pl.CostEstimate:
    """What XLA schedules by: the bytes of dense rows."""
    return pl.CostEstimate(
        flops=32 * states.size,
        transcendentals=exponentials * states.size,
        bytes_accessed=passes * states.size * states.dtype.itemsize,
    )


def _tiles(states: Array, ragged: bool) -> Tiling:
    _, tokens, features = states.shape
    tiles = tiling.tile(tokens, features, states.dtype.itemsize, ragged)
    assert tiles is not None  # ``unsupported`` has said so
    return tiles


def _blocked(scores: Array, tiles: Tiling) -> Array:
    """Scores [B H T] as [B token_blocks H tokens of a block], -inf behind the end: any block size is then aligned."""
    batch, heads, tokens = scores.shape
    more = tiles.token_blocks * tiles.tokens - tokens
    scores = jnp.pad(scores, ((0, 0), (0, 0), (0, more)), constant_values=-jnp.inf)
    return scores.reshape(batch, heads, tiles.token_blocks, tiles.tokens).transpose(0, 2, 1, 3)


def sums(call: Call, slope: bool, ragged: bool, states: Array, scores: Array, lengths: Array, rows: Array) -> Array:
    """The fields of ``Sums`` [B F D] of every row; ``rows`` holds p and log Z."""
    (batch, _, features), heads, tiles = states.shape, scores.shape[1], _tiles(states, ragged)
    count = len(fields(call, slope))

    def block(b: Array, d: Array, t: Array, lengths: Ref) -> tuple[Array, Array, Array]:
        return b, tiling.fetched_block(t, lengths[b], tiles.tokens), d

    def score_block(b: Array, d: Array, t: Array, lengths: Ref) -> tuple[Array, Array, int, int]:
        return b, tiling.fetched_block(t, lengths[b], tiles.tokens), 0, 0

    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(batch, tiles.feature_blocks, tiles.token_blocks),
        in_specs=[
            pl.BlockSpec((1, tiles.tokens, tiles.features), block),
            pl.BlockSpec((1, 1, heads, tiles.tokens), score_block),
            pl.BlockSpec((1, 2, tiles.features), lambda b, d, t, _: (b, 0, d)),
        ],
        out_specs=pl.BlockSpec((1, count, tiles.features), lambda b, d, t, _: (b, 0, d)),
        scratch_shapes=[
            pltpu.VMEM((tiles.tokens, heads), jnp.float32),
            pltpu.VMEM((count, SLOTS, tiles.features), jnp.float32),
        ],
    )
    kernel = functools.partial(_sums_kernel, call=call, slope=slope, heads=heads, size=features // heads, tiles=tiles)
    return pl.pallas_call(
        kernel,
        out_shape=_compat.output((batch, count, features), jnp.dtype("float32"), states, scores, lengths, rows),
        grid_spec=grid,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=_cost(states, 1, 1),
        interpret=_compat.current_target().interpret,
        name="lnpool_sums",
    )(lengths, states, _blocked(scores, tiles), rows)


def pullback(
    call: Call, ragged: bool, states: Array, scores: Array, lengths: Array, rows: Array
) -> tuple[Array, Array]:
    """Cotangents of the states [B T D] and scores [B H T]; ``rows`` holds ``Row`` and ``Result``."""
    (batch, tokens, features), heads, tiles = states.shape, scores.shape[1], _tiles(states, ragged)

    def block(b: Array, t: Array, d: Array, lengths: Ref) -> tuple[Array, Array, Array]:
        last = tiles.feature_blocks - 1  # behind the end the last fetched block stays, whatever d is
        behind = t >= jnp.maximum(tiling.active_blocks(lengths[b], tiles.tokens), 1)
        return b, tiling.fetched_block(t, lengths[b], tiles.tokens), jnp.where(behind, last, d)

    def score_block(b: Array, t: Array, d: Array, lengths: Ref) -> tuple[Array, Array, int, int]:
        return b, tiling.fetched_block(t, lengths[b], tiles.tokens), 0, 0

    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(batch, tiles.token_blocks, tiles.feature_blocks),
        in_specs=[
            pl.BlockSpec((1, tiles.tokens, tiles.features), block),
            pl.BlockSpec((1, 1, heads, tiles.tokens), score_block),
            pl.BlockSpec((1, 6, tiles.features), lambda b, t, d, _: (b, 0, d)),
        ],
        out_specs=[
            pl.BlockSpec((1, tiles.tokens, tiles.features), lambda b, t, d, _: (b, t, d)),
            pl.BlockSpec((1, 1, heads, tiles.tokens), lambda b, t, d, _: (b, t, 0, 0)),
        ],
        scratch_shapes=[pltpu.VMEM((tiles.tokens, heads), jnp.float32) for _ in range(2)],
    )
    args = (lengths, states, _blocked(scores, tiles), rows)
    dstates, dscores = pl.pallas_call(
        functools.partial(_gradients_kernel, call=call, heads=heads, size=features // heads, tiles=tiles),
        out_shape=[
            _compat.output(states.shape, states.dtype, *args),
            _compat.output((batch, tiles.token_blocks, heads, tiles.tokens), jnp.dtype("float32"), *args),
        ],
        grid_spec=grid,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=_cost(states, 2, 2),
        interpret=_compat.current_target().interpret,
        name="lnpool_gradients",
    )(*args)
    return dstates, dscores.transpose(0, 2, 1, 3).reshape(batch, heads, -1)[:, :, :tokens]
