"""The kernels for GPU, lowered by Pallas to Triton: a thread owns features and walks over the tokens of a row.

Triton, though JAX deprecates that lowering: of the two it alone is interpreted on a CPU and takes any number of
features, in JAX 0.7 to 0.12; Mosaic GPU wants multiples of 128 and its interpreter does not know its layouts.

Arguments as in ``tpu``. A program works on one head of a row, so its scores are one number a token. It reads no token
behind ``lengths``; padding before that is masked. Nothing is added up by atomics: equal inputs give equal bits.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from lnpool._kernels import _compat, tiling
from lnpool._kernels._elements import Result, Row, Sums, absorb, fields, gradients, merge, packed, unpacked
from lnpool._kernels.tiling import UNROLL, Columns
from lnpool._types import Call

Ref = Any  # a reference to memory of the device

_MOST_PROGRAMS = 65535  # along the second and third axis of a grid
_WARPS = 4


def unsupported(states: jax.ShapeDtypeStruct, heads: int) -> str | None:
    """Why these kernels cannot take such states [B T D]; None where they can."""
    if states.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the GPU kernels take float32 and bfloat16 states, not {states.dtype}."
    batch, tokens, features = states.shape
    if features == 0:
        return "the GPU kernels need at least one feature."
    cut = tiling.columns(batch, tokens, heads, features // heads)
    if heads * cut.blocks > _MOST_PROGRAMS:
        return f"the GPU kernels take at most {_MOST_PROGRAMS} blocks of features, not {heads * cut.blocks}."
    if pl.cdiv(tokens, cut.tile_tokens) > _MOST_PROGRAMS:
        return f"the GPU kernels take at most {_MOST_PROGRAMS * cut.tile_tokens} tokens of such states, not {tokens}."
    return None


def _real(cut: Columns, block: Array | int, size: int) -> Array:
    """Which columns [1 D] of a block of features exist."""
    return lax.broadcasted_iota(jnp.int32, (1, cut.features), 1) < size - block * cut.features


def _row(rows: Ref, columns: Any, real: Array, fields: range) -> list[Array]:
    """Fields of ``rows`` as [1 D]; 1 in columns that do not exist, whose results are not stored."""
    return [_compat.load(rows, (pl.ds(k, 1), columns), real, 1) for k in fields]


def _sums_kernel(
    lengths: Ref, states: Ref, scores: Ref, rows: Ref, out: Ref,
    *, call: Call, slope: bool, size: int, cut: Columns,
) -> None:  # fmt: skip
    real = _real(cut, pl.program_id(1) % cut.blocks, size)
    every = pl.ds(0, cut.features)
    row, initial = Row(*_row(rows, every, real, range(2))), fields(call, slope)
    start, count = tiling.span(pl.program_id(2), lengths[0], cut.split_tokens)

    def token(t: Array) -> tuple[Array, Array]:
        inside = jnp.full((1, 1), t < start + count)
        z = _compat.load(scores, (pl.ds(t, 1), pl.ds(0, 1)), inside, -jnp.inf)
        raw = _compat.load(states, (pl.ds(t, 1), every), real & inside, 0)
        return raw.astype(jnp.float32), z

    def step(i: Array, sums: Sums) -> Sums:
        return absorb(call, row, sums, [token(start + i * UNROLL + k) for k in range(UNROLL)])

    sums = unpacked(initial, (jnp.full((1, cut.features), x, jnp.float32) for x in initial.values()))
    sums = lax.fori_loop(jnp.int32(0), (count + (UNROLL - 1)) // UNROLL, step, sums)
    for k, x in enumerate(packed(sums)):
        _compat.store(out, (pl.ds(k, 1), every), x, real)


def _gradients_kernel(
    lengths: Ref, states: Ref, scores: Ref, rows: Ref, dstates: Ref, dscores: Ref,
    *, call: Call, size: int, tokens: int, cut: Columns,
) -> None:  # fmt: skip
    start = pl.program_id(2) * cut.tile_tokens
    at = pl.ds(start, cut.tile_tokens)
    t = start + lax.broadcasted_iota(jnp.int32, (cut.tile_tokens, 1), 0)
    inside, read = t < tokens, t < lengths[0]
    z = _compat.load(scores, (at, pl.ds(0, 1)), read, -jnp.inf)

    def step(block: Array, total: Array) -> Array:
        real = _real(cut, block, size)
        columns = pl.ds(block * cut.features, cut.features)
        wide = _row(rows, columns, real, range(6))
        raw = _compat.load(states, (at, columns), real & read, 0).astype(jnp.float32)
        by_states, by_scores = gradients(call, Row(*wide[:2]), Result(*wide[2:]), raw, z)
        _compat.store(dstates, (at, columns), by_states.astype(dstates.dtype), real & inside)
        return total + jnp.where(real, by_scores, 0)

    total = jnp.zeros((cut.tile_tokens, cut.features), jnp.float32)
    total = lax.fori_loop(jnp.int32(0), jnp.int32(cut.blocks), step, total)
    _compat.store(dscores, (at, pl.ds(0, 1)), jnp.sum(total, axis=1, keepdims=True), inside)


def _by_head(states: Array, scores: Array, rows: Array) -> tuple[Array, Array, Array]:
    """[B T D], [B H T] and [B R D] as [B T H K], [B H T 1] and [B R H K]."""
    heads = scores.shape[1]
    return (
        states.reshape(*states.shape[:2], heads, -1),
        scores[..., None],
        rows.reshape(*rows.shape[:2], heads, -1),
    )


def sums(call: Call, slope: bool, ragged: bool, states: Array, scores: Array, lengths: Array, rows: Array) -> Array:
    """The fields of ``Sums`` [B F D] of every row; ``rows`` holds p and log Z."""
    del ragged  # ``lengths`` says it
    (batch, tokens, features), heads = states.shape, scores.shape[1]
    size, count = features // heads, len(fields(call, slope))
    cut = tiling.columns(batch, tokens, heads, size)

    def wide(*leading: Any) -> pl.BlockSpec:
        def block(b: Array, d: Array, s: Array) -> tuple[Any, ...]:
            return (b, *((s, 0) if len(leading) == 3 else (0,)), d // cut.blocks, d % cut.blocks)

        return pl.BlockSpec((*leading, None, cut.features), block)

    args = (lengths, *_by_head(states, scores, rows))
    summed = pl.pallas_call(
        functools.partial(_sums_kernel, call=call, slope=slope, size=size, cut=cut),
        out_shape=_compat.output((batch, cut.splits, count, heads, size), jnp.dtype("float32"), *args),
        grid=(batch, heads * cut.blocks, cut.splits),
        in_specs=[
            pl.BlockSpec((1,), lambda b, d, s: (b,)),
            wide(None, tokens),
            pl.BlockSpec((None, None, tokens, 1), lambda b, d, s: (b, d // cut.blocks, 0, 0)),
            wide(None, 2),
        ],
        out_specs=wide(None, None, count),
        compiler_params=_compat.triton.CompilerParams(num_warps=_warps(cut)),
        interpret=_compat.current_target().interpret,
        name="lnpool_sums",
    )(*args)
    # The splits of a row are merged as the slots of a vector register are.
    parts = unpacked(fields(call, slope), jnp.unstack(summed.reshape(batch, cut.splits, count, features), axis=2))
    return jnp.concatenate(packed(merge(call, Row(rows[:, :1], rows[:, 1:]), parts)), axis=1)


def _warps(cut: Columns) -> int:
    """So that a thread owns up to four columns."""
    return max(1, min(_WARPS, cut.features // tiling.LANES))


def pullback(
    call: Call, ragged: bool, states: Array, scores: Array, lengths: Array, rows: Array
) -> tuple[Array, Array]:
    """Cotangents of the states [B T D] and scores [B H T]; ``rows`` holds ``Row`` and ``Result``."""
    del ragged
    (batch, tokens, features), heads = states.shape, scores.shape[1]
    size = features // heads
    cut = tiling.columns(batch, tokens, heads, size)

    def whole(length: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, length, None, size), lambda b, h, t: (b, 0, h, 0))

    by_token = pl.BlockSpec((None, None, tokens, 1), lambda b, h, t: (b, h, 0, 0))
    args = (lengths, *_by_head(states, scores, rows))
    dstates, dscores = pl.pallas_call(
        functools.partial(_gradients_kernel, call=call, size=size, tokens=tokens, cut=cut),
        out_shape=[
            _compat.output(args[1].shape, states.dtype, *args),
            _compat.output(args[2].shape, jnp.dtype("float32"), *args),
        ],
        grid=(batch, heads, pl.cdiv(tokens, cut.tile_tokens)),
        in_specs=[pl.BlockSpec((1,), lambda b, h, t: (b,)), whole(tokens), by_token, whole(6)],
        out_specs=[whole(tokens), by_token],
        compiler_params=_compat.triton.CompilerParams(num_warps=_WARPS),
        interpret=_compat.current_target().interpret,
        name="lnpool_gradients",
    )(*args)
    return dstates.reshape(states.shape), dscores[..., 0]
