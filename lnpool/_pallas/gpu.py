"""The kernels for GPU, lowered by Pallas to Triton: a thread owns features and walks over the tokens of a row.

Triton, though JAX deprecates that lowering: of the two it alone is interpreted on a CPU and takes any number of
features, in JAX 0.7 to 0.12; Mosaic GPU wants multiples of 128 and its interpreter does not know its layouts.

Arguments as in ``tpu``. A program works on one head of one text, so its scores are one number a token; where its tokens
lie comes from a table of spans. It reads no token behind the last real one of a row; padding before that is masked.
What the programs of a text have summed is merged afterwards. Nothing is added up by atomics: equal inputs give equal
bits.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from lnpool._pallas import compat, tiling
from lnpool._pallas.online import (
    Known,
    Result,
    Row,
    Sums,
    absorb,
    fields,
    gradients,
    merge,
    packed,
    together,
    unpacked,
    unstacked,
)
from lnpool._pallas.tiling import UNROLL, Columns
from lnpool._types import Call

Ref = Any  # a reference to memory of the device

_MOST_PROGRAMS = 2**31 - 2  # of a grid; Pallas folds its axes where one is too long
_WARPS = 4


def unsupported(states: jax.ShapeDtypeStruct, heads: int, texts: int | None) -> str | None:
    """Why these kernels cannot take such states [B T D], with packed ``texts`` in each row; None where they can."""
    if states.dtype not in (jnp.float32, jnp.bfloat16):
        return f"the GPU kernels take float32 and bfloat16 states, not {states.dtype}."
    batch, tokens, features = states.shape
    if features == 0:
        return "the GPU kernels need at least one feature."
    cut = tiling.columns(batch, tokens, heads, features // heads)
    steps = pl.cdiv(tokens, min(cut.split_tokens, cut.tile_tokens)) + (texts or 0)
    if batch * heads * cut.blocks * steps > _MOST_PROGRAMS:
        return f"the GPU kernels take at most {_MOST_PROGRAMS} blocks of states, and these are more."
    return None


class _Span(NamedTuple):
    """The tokens of a row that a program works on, from ``start`` to before ``stop``; it reads those < ``real``."""

    start: Array
    stop: Array
    real: Array
    text: Array


def _spans(where: Array, tokens: int, size: int) -> Array:
    """The spans [B K 4] of at most ``size`` tokens each; ``where`` as in ``tpu``."""
    if where.ndim == 2:
        cut = tiling.steps(where, tokens, size)
        return jnp.stack(_Span(cut.bounds[:, :-1], cut.bounds[:, 1:], cut.bounds[:, 1:], cut.texts), axis=-1)
    start = jnp.arange(0, tokens, size, dtype=jnp.int32)[None]
    stop, length = jnp.minimum(start + size, tokens), where[:, None]
    return jnp.stack(jnp.broadcast_arrays(*_Span(start, stop, jnp.minimum(stop, length), length * 0)), axis=-1)


def _real(cut: Columns, block: Array | int, size: int) -> Array:
    """Which columns [1 D] of a block of features exist."""
    return lax.broadcasted_iota(jnp.int32, (1, cut.features), 1) < size - block * cut.features


def _row(kind: type[Known], rows: Ref, text: Array, columns: Any, real: Array) -> Known:
    """What is known of a row, as [1 D]; 1 in columns that do not exist, whose results are not stored."""
    return unstacked(kind, lambda k: compat.load(rows, (text, pl.ds(k, 1), columns), real, 1))


def _empty(initial: dict[str, float], cut: Columns) -> Sums:
    return unpacked(initial, (jnp.full((1, cut.features), x, jnp.float32) for x in initial.values()))


def _sums_kernel(
    spans: Ref, states: Ref, scores: Ref, rows: Ref, out: Ref,
    *, call: Call, slope: bool, size: int, cut: Columns,
) -> None:  # fmt: skip
    real = _real(cut, pl.program_id(1) % cut.blocks, size)
    every, span, initial = pl.ds(0, cut.features), _Span(*(spans[k] for k in range(4))), fields(call, slope)
    row = _row(Row, rows, span.text, every, real)

    def token(t: Array) -> tuple[Array, Array]:
        inside = jnp.full((1, 1), t < span.real)
        z = compat.load(scores, (pl.ds(t, 1), pl.ds(0, 1)), inside, -jnp.inf)
        raw = compat.load(states, (pl.ds(t, 1), every), real & inside, 0)
        return raw.astype(jnp.float32), z

    def step(i: Array, sums: Sums) -> Sums:
        return absorb(call, row, sums, [token(span.start + i * UNROLL + k) for k in range(UNROLL)])

    count = jnp.maximum(span.real - span.start, 0)
    sums = lax.fori_loop(jnp.int32(0), (count + (UNROLL - 1)) // UNROLL, step, _empty(initial, cut))
    for k, x in enumerate(packed(sums)):
        compat.store(out, (pl.ds(k, 1), every), x, real)


def _merge_kernel(
    firsts: Ref, parts: Ref, rows: Ref, out: Ref,
    *, call: Call, slope: bool, size: int, cut: Columns,
) -> None:  # fmt: skip
    real = _real(cut, pl.program_id(1) % cut.blocks, size)
    every, initial, (first, stop) = pl.ds(0, cut.features), fields(call, slope), (firsts[0], firsts[1])
    row = _row(Row, rows, pl.program_id(2), every, real)

    def part(t: Array) -> Sums:
        inside = real & jnp.full((1, 1), t < stop)
        loads = (compat.load(parts, (t, pl.ds(k, 1), every), inside, x) for k, x in enumerate(initial.values()))
        return unpacked(initial, loads)

    def step(i: Array, sums: Sums) -> Sums:
        return together(call, row, [sums, *(part(first + i * UNROLL + k) for k in range(UNROLL))])

    sums = lax.fori_loop(jnp.int32(0), (stop - first + (UNROLL - 1)) // UNROLL, step, _empty(initial, cut))
    for k, x in enumerate(packed(sums)):
        compat.store(out, (pl.ds(k, 1), every), x, real)


def _gradients_kernel(
    spans: Ref, states: Ref, scores: Ref, rows: Ref, dstates: Ref, dscores: Ref,
    *, call: Call, size: int, cut: Columns,
) -> None:  # fmt: skip
    span = _Span(*(spans[k] for k in range(4)))
    at = pl.ds(span.start, cut.tile_tokens)
    t = span.start + lax.broadcasted_iota(jnp.int32, (cut.tile_tokens, 1), 0)
    inside, read = t < span.stop, t < span.real
    z = compat.load(scores, (at, pl.ds(0, 1)), read, -jnp.inf)

    def step(block: Array, total: Array) -> Array:
        real = _real(cut, block, size)
        columns = pl.ds(block * cut.features, cut.features)
        row = _row(Result, rows, span.text, columns, real)
        raw = compat.load(states, (at, columns), real & read, 0).astype(jnp.float32)
        by_states, by_scores = gradients(call, row, raw, z)
        compat.store(dstates, (at, columns), by_states.astype(dstates.dtype), real & inside)
        return total + jnp.where(real, by_scores, 0)

    total = jnp.zeros((cut.tile_tokens, cut.features), jnp.float32)
    total = lax.fori_loop(jnp.int32(0), jnp.int32(cut.blocks), step, total)
    compat.store(dscores, (at, pl.ds(0, 1)), jnp.sum(total, axis=1, keepdims=True), inside)


def _by_head(states: Array, scores: Array, rows: Array) -> tuple[Array, Array, Array]:
    """[B T D], [B H T] and [B S R D] as [B T H K], [B H T 1] and [B S R H K]."""
    heads = scores.shape[1]
    return (
        states.reshape(*states.shape[:2], heads, -1),
        scores[..., None],
        rows.reshape(*rows.shape[:3], heads, -1),
    )


_SPAN = pl.BlockSpec((None, None, 4), lambda b, _, k: (b, k, 0))


def _wide(cut: Columns, by_step: bool, *leading: Any) -> pl.BlockSpec:
    """A block of features of a row, or of one of its steps."""

    def block(b: Array, d: Array, k: Array) -> tuple[Any, ...]:
        rest = (0,) * (len(leading) - 1 - by_step)
        return (b, *((k,) if by_step else ()), *rest, d // cut.blocks, d % cut.blocks)

    return pl.BlockSpec((*leading, None, cut.features), block)


def sums(call: Call, slope: bool, ragged: bool, states: Array, scores: Array, where: Array, rows: Array) -> Array:
    """The fields of ``Sums`` [B S F D] of every text; ``rows`` holds a ``Row`` each."""
    del ragged  # ``where`` says it
    (batch, tokens, features), heads = states.shape, scores.shape[1]
    size, count = features // heads, len(fields(call, slope))
    cut = tiling.columns(batch, tokens, heads, size)
    spans = _spans(where, tokens, cut.split_tokens)
    args = (spans, *_by_head(states, scores, rows))
    facts: dict[str, Any] = {"call": call, "slope": slope, "size": size, "cut": cut}
    parts = pl.pallas_call(
        functools.partial(_sums_kernel, **facts),
        out_shape=compat.output((batch, spans.shape[1], count, heads, size), jnp.dtype("float32"), *args),
        grid=(batch, heads * cut.blocks, spans.shape[1]),
        in_specs=[
            _SPAN,
            _wide(cut, False, None, tokens),
            pl.BlockSpec((None, None, tokens, 1), lambda b, d, k: (b, d // cut.blocks, 0, 0)),
            _wide(cut, False, None, rows.shape[1], len(Row._fields)),
        ],
        out_specs=_wide(cut, True, None, None, count),
        compiler_params=compat.triton.CompilerParams(num_warps=_warps(cut)),
        interpret=compat.current_target().interpret,
        name="lnpool_sums",
    )(*args)
    if where.ndim == 2:
        firsts = tiling.steps(where, tokens, cut.split_tokens).firsts
        return _merged(facts, firsts, parts, args[3]).reshape(batch, -1, count, features)
    # The splits of a row are merged as the slots of a vector register are.
    slots = unpacked(fields(call, slope), jnp.unstack(parts.reshape(batch, -1, count, features), axis=2))
    return jnp.stack(packed(merge(call, unstacked(Row, lambda k: rows[:, :, k]), slots)), axis=2)


def _merged(facts: dict[str, Any], firsts: Array, parts: Array, rows: Array) -> Array:
    """What the steps of packed texts have summed [B K F H K], merged [B S F H K]."""
    cut, (batch, steps, count, heads, size) = facts["cut"], parts.shape
    args = (jnp.stack([firsts[:, :-1], firsts[:, 1:]], axis=-1), parts, rows)
    return pl.pallas_call(
        functools.partial(_merge_kernel, **facts),
        out_shape=compat.output((batch, rows.shape[1], count, heads, size), jnp.dtype("float32"), *args),
        grid=(batch, heads * cut.blocks, rows.shape[1]),
        in_specs=[
            pl.BlockSpec((None, None, 2), lambda b, _, s: (b, s, 0)),
            _wide(cut, False, None, steps, count),
            _wide(cut, False, None, rows.shape[1], len(Row._fields)),
        ],
        out_specs=_wide(cut, True, None, None, count),
        compiler_params=compat.triton.CompilerParams(num_warps=_warps(cut)),
        interpret=compat.current_target().interpret,
        name="lnpool_merge",
    )(*args)


def _warps(cut: Columns) -> int:
    """So that a thread owns up to four columns."""
    return max(1, min(_WARPS, cut.features // tiling.LANES))


def pullback(call: Call, ragged: bool, states: Array, scores: Array, where: Array, rows: Array) -> tuple[Array, Array]:
    """Cotangents of the states [B T D] and scores [B H T]; ``rows`` a ``Result`` each."""
    del ragged
    (batch, tokens, features), heads = states.shape, scores.shape[1]
    size = features // heads
    cut = tiling.columns(batch, tokens, heads, size)
    spans = _spans(where, tokens, cut.tile_tokens)

    def whole(*leading: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, *leading, None, size), lambda b, h, _: (b, *(0 for _ in leading), h, 0))

    by_token = pl.BlockSpec((None, None, tokens, 1), lambda b, h, _: (b, h, 0, 0))
    args = (spans, *_by_head(states, scores, rows))
    dstates, dscores = pl.pallas_call(
        functools.partial(_gradients_kernel, call=call, size=size, cut=cut),
        out_shape=[
            compat.output(args[1].shape, states.dtype, *args),
            compat.output(args[2].shape, jnp.dtype("float32"), *args),
        ],
        grid=(batch, heads, spans.shape[1]),
        in_specs=[_SPAN, whole(tokens), by_token, whole(rows.shape[1], len(Result._fields))],
        out_specs=[whole(tokens), by_token],
        compiler_params=compat.triton.CompilerParams(num_warps=_WARPS),
        interpret=compat.current_target().interpret,
        name="lnpool_gradients",
    )(*args)
    return dstates.reshape(states.shape), dscores[..., 0]
