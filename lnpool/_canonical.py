"""From the shapes of the user to the canonical ones of ``_types``, and the static facts of a call; all checked."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from lnpool import _check, _dispatch
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._types import Call, Implementation, Inputs, Tokens
from lnpool._xla import packed


class Canonical(NamedTuple):
    """A call that is known to be sound, and the shapes that the user knows."""

    call: Call
    inputs: Inputs
    batch: tuple[Any, ...]
    tokens: int
    features: int


def compute_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype of the arithmetic inside: float32, or float64 where an argument has it; also under strict promotion."""
    return jnp.dtype(jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32)


def ids_within(segment_ids: ArrayLike, num_segments: int) -> Array:
    """Ids of any integer type as int32 in [-1, S], where those outside of [0, S) belong to no text."""
    ids: Any = segment_ids if isinstance(segment_ids, jax.Array) else np.asarray(segment_ids)
    if jnp.iinfo(ids.dtype).max >= num_segments:  # before the cast, which would wrap; int8 may not hold S, nor need it
        ids = ids.clip(-1 if jnp.issubdtype(ids.dtype, jnp.signedinteger) else 0, num_segments)
    return jnp.asarray(ids, jnp.int32)


def _heads(heads: int, size: int | None = None) -> tuple[int, ...]:
    """The head axis in a canonical shape: absent for a single head."""
    return () if heads == 1 else (size or heads,)


def _exponent(p: ArrayLike, features: int, heads: int, dtype: jnp.dtype) -> Array:
    """The exponent as [1 1 *H|1 K|1]."""
    _check.exponent(p)
    if isinstance(p, int | float):  # jnp.asarray takes no integer beyond those of C, and warns where float32 overflows
        p = math.copysign(math.inf, p) if abs(p) > float(jnp.finfo(dtype).max) else float(p)
    array = jnp.asarray(p, dtype)
    _check.exponent_shape(array.shape, features, heads)
    if array.shape == ():
        return array.reshape(1, 1, *_heads(heads, 1), 1)
    if array.shape == (features,):
        return array.reshape(1, 1, *_heads(heads), features // heads)
    return array.reshape(1, 1, *_heads(heads), 1)


def _mask(mask: ArrayLike | None, leading: tuple[Any, ...], heads: int) -> Array | None:
    """Mask [*#B T] as [B T *1 1]."""
    _check.mask(mask, leading)
    if mask is None:
        return None
    wide = jnp.broadcast_to(jnp.asarray(mask), leading)
    return wide.reshape(math.prod(leading[:-1]), leading[-1], *_heads(heads, 1), 1)


def _log_range(scale_limit: str | None, log_bound: float | None) -> tuple[float, float] | None:
    """The known range of log h, if there is one."""
    if scale_limit is not None:
        return SCALE_LIMITS[_check.one_of("scale_limit", scale_limit, SCALE_LIMITS)].log_range
    return None if log_bound is None else (-float(log_bound), float(log_bound))


def _implementation(implementation: str | None) -> Implementation:
    if implementation is None:
        return _dispatch.best()
    name = _check.one_of("implementation", implementation, _dispatch.BACKENDS)
    _check.runs_here(name, _dispatch.BACKENDS[name].why_not())
    return name


def pooling(
    states: Any,
    scores: Any,
    p: ArrayLike,
    *,
    mask: ArrayLike | None,
    scale_limit: str | None,
    log_states: bool,
    log_bound: float | None,
    sharpen: bool,
    log_output: bool = False,
    axis_name: str | None = None,
    implementation: str | None,
    segments: tuple[ArrayLike, int] | None = None,
) -> Canonical:
    """What the public functions accept -> one canonical call."""
    _check.states(states)
    _check.kind_of_states(scale_limit, log_states, log_bound)
    _check.axis_name(axis_name)
    limit = None if scale_limit is None else _check.one_of("scale_limit", scale_limit, SCALE_LIMITS)
    call = Call(
        implementation=_implementation(implementation),
        log_states=log_states or limit == "exp",  # whose raw states are log h
        scale_limit=None if limit == "exp" else limit,
        log_range=_log_range(scale_limit, log_bound),
        sharpen=_check.boolean("sharpen", sharpen),
        axis_name=axis_name,
        log_output=_check.boolean("log_output", log_output),
    )
    states = jnp.asarray(states)
    *batch, tokens, features = states.shape
    rows = math.prod(batch)
    if scores is None:
        scores = jnp.zeros_like(states[..., 0])  # cut over devices as the states are
    _check.scores(scores, (*batch, tokens))
    scores = jnp.asarray(scores)
    heads = scores.shape[-1] if scores.ndim == states.ndim else 1
    _check.divides(features, heads)
    packing = None
    if segments is not None:
        segment_ids, num_segments = segments
        _check.segments(states, segment_ids, num_segments)
        packing = packed.cut(ids_within(segment_ids, int(num_segments)), int(num_segments))
    arrays = Tokens(
        states=states.reshape(rows, tokens, *_heads(heads), features // heads),
        scores=scores.reshape(rows, tokens, *_heads(heads), 1),
        mask=_mask(mask, (*batch, tokens), heads),
    )
    inputs = Inputs(arrays, _exponent(p, features, heads, compute_dtype(states, scores)), packing)
    _check.takes_inputs(call.implementation, _dispatch.BACKENDS[call.implementation].unsupported(call, inputs))
    return Canonical(call, inputs, tuple(batch) if packing is None else packing.last.shape, tokens, features)


def attention(
    scores: Any, p: ArrayLike, *, mask: ArrayLike | None, sharpen: bool
) -> tuple[tuple[Any, ...], Call, Inputs]:
    """Scores alone -> their shape, a call and canonical inputs; the last axis is heads when p is [H]."""
    _check.exponent(p)
    headed = jnp.ndim(p) == 1
    _check.scores_alone(scores, jnp.size(p) if headed else None)
    scores = jnp.asarray(scores)
    *batch, tokens, heads = scores.shape if headed else (*scores.shape, 1)
    canonical = scores.reshape(math.prod(batch), tokens, *_heads(heads), 1)
    arrays = Tokens(canonical, canonical, _mask(mask, (*batch, tokens), heads))
    inputs = Inputs(arrays, _exponent(p, heads, heads, compute_dtype(scores)))
    call = Call(implementation=_dispatch.best(), sharpen=_check.boolean("sharpen", sharpen))
    return scores.shape, call, inputs
