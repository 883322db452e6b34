"""What a kernel does with one block of tokens: the formulas of ``single_pass`` and their online form, for p >= 1.

A block is a float32 array [N S D]: N x S tokens, of which the S slots are summed apart and merged at the end of the
row, so that the inner loop reduces over N alone, which moves no data between lanes or sublanes.

With a known bound: W = sum_i exp(p d_i + log v_i), d = u - upper. Without one, a running reference
h_ref = max h and a running maximum m of y = z + d, d = log(h/h_ref), keep every exponent <= 0:

    W = sum_i exp(p (y_i - m))     E = sum_i exp(p (y_i - m)) (y_i - m)     log r = log h_ref + m + (log W - log Z)/p

A new maximum rescales W and E once a block. The ratio h/h_ref is taken before its logarithm, so the
scale of the states costs no digits: the value keeps the mark N1 of the exact form, error <= u (16 + 8 |log(r/h_ref)|).
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jax import Array

from lnpool._formulas import single_pass
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._formulas.single_pass import SILENT
from lnpool._types import Call, Residuals


class Sums(NamedTuple):
    """What a row has summed so far; None where the form does not need it."""

    w: Array
    e: Array | None = None  # for the derivative by p
    reference: Array | None = None  # largest h, or log h, so far
    m: Array | None = None  # largest y so far, relative to the reference


class Row(NamedTuple):
    """What the formulas need to know of a row, as wide as the features."""

    p: Array
    log_z: Array


class Result(NamedTuple):
    """What the backward pass needs to know of a row, as wide as the features."""

    p: Array
    log_z: Array
    reference: Array
    rho: Array  # log(r/reference)
    by_log: Array  # cotangent of log r
    by_r: Array  # cotangent of r


Known = TypeVar("Known", Row, Result)


def stacked(known: Known) -> Array:
    """All that is known of the rows [B S D], as one operand [B S R D] of a kernel."""
    return jnp.stack(known, axis=2)


def unstacked(kind: type[Known], field: Callable[[int], Array]) -> Known:
    """What is known of a row, from its fields by number."""
    return kind(*map(field, range(len(kind._fields))))


def is_bounded(call: Call) -> bool:
    """Whether a known range of log h stands in for the running maximum."""
    return call.log_range is not None and all(map(math.isfinite, call.log_range))


def fields(call: Call, slope: bool) -> dict[str, float]:
    """The fields of ``Sums`` that the form needs, in order, with their initial values."""
    initial = {"w": 0.0, "e": 0.0} if slope else {"w": 0.0}
    return initial if is_bounded(call) else initial | {"reference": 0.0 if call.is_linear else SILENT, "m": SILENT}


def unpacked(names: Iterable[str], arrays: Iterable[Array]) -> Sums:
    """``Sums`` with the named fields."""
    return Sums(**dict(zip(names, arrays, strict=True)))


def packed(sums: Sums) -> list[Array]:
    """The fields that are there."""
    return [x for x in sums if x is not None]


def _states(call: Call, raw: Array, mask: Array) -> Array:
    """h for linear input, else log h; a zero at padding, whatever that holds."""
    states = jnp.where(mask, raw, 0)
    if call.scale_limit:
        states = SCALE_LIMITS[call.scale_limit].log_states(states)
    return states if call.is_linear else jnp.where(mask, states, -jnp.inf)


def _log_ratio(call: Call, states: Array, reference: Array) -> Array:
    """log(h/reference); SILENT for a zero."""
    return single_pass.silent_log_ratio(
        call.is_linear, states, jnp.where(reference == 0, 1, reference) if call.is_linear else reference
    )


def _log_v(call: Call, row: Row | Result, z: Array) -> Array:
    return (row.p * z if call.sharpen else z) - row.log_z


def absorb(call: Call, row: Row, sums: Sums, blocks: Sequence[tuple[Array, Array]]) -> Sums:
    """The sums [1 S D] with blocks of states [N S D] and scores [N S 1|D], -inf at padding, added.

    Several blocks share one rescale, so that a thread that reads one token after the other is as fast as a wide vector.
    """
    known = [(_states(call, raw, z != -jnp.inf), jnp.where(z == -jnp.inf, 0, z)) for raw, z in blocks]
    if is_bounded(call):
        return _absorb_bounded(call, row, sums, known)
    assert sums.reference is not None
    reference = functools.reduce(jnp.maximum, (_over_tokens(jnp.max, states) for states, _ in known), sums.reference)
    ratios = [_log_ratio(call, states, reference) for states, _ in known]
    ys = [
        jnp.where(d == SILENT, SILENT, score + (d if call.sharpen else row.p * d))
        for d, (_, score) in zip(ratios, known, strict=True)
    ]
    tops = [_over_tokens(jnp.max, y) for y in ys]
    sums = _rescaled(call, row, sums, reference, lambda m: functools.reduce(jnp.maximum, tops, m))
    assert sums.m is not None
    w, e = sums.w, sums.e
    for d, y in zip(ratios, ys, strict=True):
        terms = jnp.where(d == SILENT, 0, jnp.exp(_scaled(call, row, y - sums.m)))
        w = w + _over_tokens(jnp.sum, terms)
        e = None if e is None else e + _over_tokens(jnp.sum, terms * (y - sums.m if call.sharpen else d))
    return sums._replace(w=w, e=e)


def _absorb_bounded(call: Call, row: Row, sums: Sums, known: Sequence[tuple[Array, Array]]) -> Sums:
    assert call.log_range is not None
    w, e = sums.w, sums.e
    for states, score in known:
        d = jnp.maximum(states - call.log_range[1], SILENT)
        terms, weighted = single_pass.sums(row.p, d, score, _log_v(call, row, score), call.sharpen)
        w = w + _over_tokens(jnp.sum, terms)
        e = None if e is None else e + _over_tokens(jnp.sum, weighted)
    return Sums(w, e)


def merge(call: Call, row: Row, sums: Sums) -> Sums:
    """The slots [B S D] of every row as one [B 1 D]."""
    if sums.reference is not None:
        reference = jnp.max(sums.reference, axis=1, keepdims=True)
        sums = _rescaled(call, row, sums, reference, lambda m: jnp.max(m, axis=1, keepdims=True))
    w, e = (None if x is None else jnp.sum(x, axis=1, keepdims=True) for x in (sums.w, sums.e))
    assert w is not None
    return sums._replace(w=w, e=e)


def together(call: Call, row: Row, parts: Sequence[Sums]) -> Sums:
    """The sums of several parts of a text [1 D] as one."""
    if not is_bounded(call):
        reference = _reduced(jnp.maximum, (part.reference for part in parts))
        parts = [_rescaled(call, row, part, reference, lambda m: m) for part in parts]
        m = _reduced(jnp.maximum, (part.m for part in parts))
        parts = [_rescaled(call, row, part, reference, lambda _: m) for part in parts]
    e = None if parts[0].e is None else _reduced(jnp.add, (part.e for part in parts))
    return parts[0]._replace(w=_reduced(jnp.add, (part.w for part in parts)), e=e)


def _reduced(operation: Callable[[Array, Array], Array], arrays: Iterable[Array | None]) -> Array:
    return functools.reduce(operation, (x for x in arrays if x is not None))


def _rescaled(call: Call, row: Row, sums: Sums, reference: Array, new_maximum: Callable[[Array], Array]) -> Sums:
    """The same sums relative to a new reference and a new maximum."""
    assert sums.reference is not None
    assert sums.m is not None
    shift = _log_ratio(call, sums.reference, reference)
    old = jnp.maximum(sums.m + (shift if call.sharpen else row.p * shift), SILENT)
    m = new_maximum(old)
    decay = jnp.exp(_scaled(call, row, old - m))
    e = None if sums.e is None else decay * (sums.e + sums.w * (old - m if call.sharpen else shift))
    return Sums(sums.w * decay, e, reference, m)


def _scaled(call: Call, row: Row, y: Array) -> Array:
    return row.p * y if call.sharpen else y


def _over_tokens(reduce: Callable[..., Array], x: Array) -> Array:
    return x if x.shape[0] == 1 else reduce(x, axis=0, keepdims=True)


def finish(call: Call, row: Row, sums: Sums, mean_z: Array) -> Residuals:
    """The pooled value and all that the backward pass needs, from the sums of a whole row."""
    p, zero = row.p, sums.w == 0
    w = jnp.where(zero, 1, sums.w)
    log_w = jnp.log(w)
    if is_bounded(call):
        assert call.log_range is not None
        m = jnp.zeros_like(log_w)
        reference, rho = m + call.log_range[1], log_w / p
        mean = rho + (mean_z if call.sharpen else 0)
    else:
        assert sums.reference is not None
        assert sums.m is not None
        reference, m = sums.reference, jnp.where(zero, -jnp.inf, sums.m)
        reference = jnp.where(reference == (0 if call.is_linear else SILENT), 1 if call.is_linear else 0, reference)
        excess = log_w - row.log_z
        rho = m + excess / p if call.sharpen else (m + excess) / p
        mean = mean_z + excess / p if call.sharpen else rho
    rho = jnp.where(zero, 0, rho)
    value = single_pass.pooled(call.is_linear, reference, rho, call.log_output)
    value = jnp.where(zero, -jnp.inf if call.log_output else 0, value)
    gain = jnp.where(zero, 0, 1) if call.log_output else value
    slope = rho if sums.e is None else jnp.where(zero, 0, (sums.e / w - mean) / p)
    y_reference, log_w = (m, log_w + row.log_z) if is_bounded(call) else (m, log_w)
    everywhere = jnp.ones_like(zero)
    return Residuals(value, gain.astype(value.dtype), slope, rho, reference, y_reference, log_w, everywhere)


def gradients(call: Call, row: Result, raw: Array, z: Array) -> tuple[Array, Array]:
    """Cotangents of a block of states, and of its scores before the sum over features; 0 at padding."""
    mask = z != -jnp.inf
    score = jnp.where(mask, z, 0)
    log_v = _log_v(call, row, score)
    d = _log_ratio(call, _states(call, raw, mask), row.reference)
    w = single_pass.by_log_states(row.p, d, log_v, row.rho)
    difference = w - jnp.exp(log_v)
    if call.is_linear:
        dstates = row.by_r * single_pass.by_states(row.p, d, log_v, row.rho)
    elif call.scale_limit:
        dstates = row.by_log * w * SCALE_LIMITS[call.scale_limit].derivative(jnp.where(mask, raw, 0))
    else:
        dstates = row.by_log * w
    dscores = row.by_log * (difference if call.sharpen else difference / row.p)
    return jnp.where(mask, dstates, 0), jnp.where(mask, dscores, 0)
