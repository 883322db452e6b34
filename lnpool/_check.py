"""Every check on what a user passes, and the way from user shapes to canonical shapes. All user errors are raised here.

TypeError for a wrong dtype or kind, ValueError for a wrong shape or value; each message names the argument, what was
expected, what came, and the fix.
"""

import difflib
import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from lnpool import _dispatch, _pieces
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Implementation, Inputs, Pieces

Name = TypeVar("Name", bound=str)


class Checked(NamedTuple):
    """A call that is known to be sound, and the shapes that the user knows."""

    call: Call
    inputs: Inputs
    batch: tuple[int, ...]
    tokens: int
    features: int


def one_of(argument: str, value: object, allowed: Iterable[Name]) -> Name:
    """``value`` if it is one of the names, else a ValueError that offers the nearest."""
    names = list(allowed)
    for name in names:
        if value == name:
            return name
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"{argument}={value!r} is unknown; {hint}Use one of {', '.join(map(repr, names))}.")


def positive_integer(argument: str, value: object) -> int:
    """``value`` if it is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} must be an integer, got {type(value).__name__}; pass {argument}=1 or more.")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, got {value}.")
    return int(value)


def divides(features: int, heads: int) -> None:
    """Raise unless the features split evenly over the heads."""
    if features % heads:
        raise ValueError(
            f"heads must divide the features: {features} features over {heads} heads leave {features % heads} over; "
            "choose a number of heads that divides them."
        )


def boolean(argument: str, value: object) -> bool:
    """``value`` if it is a Python bool: it is static, a traced value cannot choose the formula."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False (a static Python bool), got {type(value).__name__}.")
    return value


def floating(argument: str, value: ArrayLike) -> Array:
    """``value`` as an array, if it is a real floating-point array."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{argument} must be an array, got {type(value).__name__}; pass jnp.asarray(...).")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{argument} must be floating point, got {value.dtype}; pass {argument}.astype(jnp.float32).")
    return jnp.asarray(value)


def compute_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype of the arithmetic inside: float32, or float64 where an argument has it; also under strict promotion."""
    return jnp.dtype(jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32)


def _check_states(states: ArrayLike) -> Array:
    states = floating("states", states)
    if states.ndim < 2:
        raise ValueError(f"states must have shape [*B T D], rank 2 or more, got {states.shape}; pass states[None].")
    if states.shape[-2] == 0:
        raise ValueError(f"states must hold at least one token, got shape {states.shape}; mask empty texts instead.")
    return states


def check_scores(scores: ArrayLike, batch: tuple[int, ...], tokens: int) -> Array:
    """Scores [*B T] or [*B T H] as [*B T H]."""
    scores = floating("scores", scores)
    leading = (*batch, tokens)
    if scores.shape == leading:
        return scores[..., None]
    if scores.ndim == len(leading) + 1 and scores.shape[:-1] == leading and scores.shape[-1] > 0:
        return scores
    raise ValueError(
        f"scores must have shape [*B T] = {leading} or [*B T H] = {(*leading, 'H')} to fit the states, "
        f"got {scores.shape}; for one scorer drop its last axis, scores[..., 0]."
    )


def check_mask(mask: ArrayLike, batch: tuple[int, ...], tokens: int) -> Array:
    """Mask [*#B T] broadcast to [*B T]."""
    if not isinstance(mask, jax.Array | np.ndarray):
        raise TypeError(f"mask must be a boolean array, got {type(mask).__name__}; pass jnp.asarray(mask, bool).")
    if mask.dtype != bool:
        raise TypeError(f"mask must be boolean, True = real token, got {mask.dtype}; pass mask.astype(bool).")
    shape = (*batch, tokens)
    fits = mask.ndim <= len(shape) and mask.ndim >= 1 and mask.shape[-1] == tokens
    fits = fits and all(m in (1, b) for m, b in zip(mask.shape[-2::-1], batch[::-1], strict=False))
    if not fits:
        raise ValueError(
            f"mask must have shape [*#B T], broadcastable to {shape} with all {tokens} tokens, got {mask.shape}."
        )
    return jnp.broadcast_to(jnp.asarray(mask), shape)


def _heads(heads: int, size: int | None = None) -> tuple[int, ...]:
    """The head axis in a canonical shape: absent for a single head."""
    return () if heads == 1 else (size or heads,)


def _check_p(p: ArrayLike, features: int, heads: int, dtype: jnp.dtype) -> Array:
    """The exponent in canonical shape [1 *H|1 K|1]."""
    if isinstance(p, bool) or not isinstance(p, int | float | jax.Array | np.ndarray | np.generic):
        raise TypeError(f"p must be a number or an array, got {type(p).__name__}; pass jnp.asarray(p).")
    if not jnp.issubdtype(jnp.result_type(p), jnp.floating) and not isinstance(p, int):
        raise TypeError(f"p must be floating point, got {jnp.result_type(p)}; pass p.astype(jnp.float32).")
    array = jnp.asarray(p, dtype)
    if array.shape == ():
        return array.reshape(1, *_heads(heads, 1), 1)
    if array.shape == (features,):
        return array.reshape(1, *_heads(heads), features // heads)
    if array.shape == (heads,):
        return array.reshape(1, *_heads(heads), 1)
    raise ValueError(
        f"p must be a scalar, one exponent per feature [D] = ({features},) or per head [H] = ({heads},), "
        f"got shape {array.shape}; heads come from the last axis of scores."
    )


def _log_range(log_states: bool, log_bound: float | None, scale_limit: str | None) -> tuple[float, float] | None:
    if scale_limit is not None:
        name = one_of("scale_limit", scale_limit, SCALE_LIMITS)
        if log_states:
            raise ValueError("scale_limit makes log states from raw ones; with log_states=True drop scale_limit.")
        if log_bound is not None:
            raise ValueError("every scale_limit knows its own bound; drop log_bound.")
        return SCALE_LIMITS[name].log_range
    if log_bound is None:
        return None
    if isinstance(log_bound, bool) or not isinstance(log_bound, int | float | np.floating):
        raise TypeError(f"log_bound must be a static Python float, got {type(log_bound).__name__}.")
    if not log_states:
        raise ValueError("log_bound bounds |log h|, so it needs log_states=True and log h as the states.")
    if not (math.isfinite(log_bound) and log_bound > 0):
        raise ValueError(f"log_bound must be positive and finite, got {log_bound}; pass None where no bound is known.")
    return -float(log_bound), float(log_bound)


def _check_implementation(implementation: str | None) -> Implementation:
    if implementation is None:
        return _dispatch.best()
    name = one_of("implementation", implementation, _dispatch.BACKENDS)
    reason = _dispatch.BACKENDS[name].why_not()
    if reason is not None:
        raise NotImplementedError(f"implementation={name!r} cannot run here: {reason}")
    return name


def _check_axis(axis_name: str | None) -> str | None:
    if axis_name is None:
        return None
    if not isinstance(axis_name, str):
        raise TypeError(f"axis_name must be the name of one shard_map axis, got {type(axis_name).__name__}.")
    try:
        lax.axis_size(axis_name)
    except NameError:
        raise ValueError(
            f"axis_name={axis_name!r} is no axis here; call inside jax.shard_map over a mesh that has it."
        ) from None
    return axis_name


def _check_segments(states: Array, segment_ids: ArrayLike, num_segments: int) -> Pieces:
    if states.ndim != 2:
        raise ValueError(f"packed states must have shape [N D], got {states.shape}; use jax.vmap for more axes.")
    if not isinstance(segment_ids, jax.Array | np.ndarray):
        raise TypeError(f"segment_ids must be an array, got {type(segment_ids).__name__}; pass jnp.asarray(...).")
    if not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise TypeError(f"segment_ids must be integers, got {segment_ids.dtype}.")
    if segment_ids.shape != states.shape[:1]:
        raise ValueError(f"segment_ids must have shape [N] = {states.shape[:1]}, got {segment_ids.shape}.")
    num_segments = positive_integer("num_segments", num_segments)
    known = None if isinstance(segment_ids, jax.core.Tracer) else np.asarray(segment_ids)
    if known is not None and bool(np.any(known[1:] < known[:-1])):
        raise ValueError("segment_ids must be sorted: the tokens of a text lie together; sort tokens and ids first.")
    return _pieces.cut(jnp.asarray(segment_ids), num_segments)


def check(
    states: ArrayLike,
    scores: ArrayLike | None,
    p: ArrayLike,
    *,
    mask: ArrayLike | None,
    scale_limit: str | None,
    log_states: bool,
    log_bound: float | None,
    sharpen: bool,
    axis_name: str | None = None,
    implementation: str | None,
    segments: tuple[ArrayLike, int] | None = None,
) -> Checked:
    """What the public functions accept -> one canonical call; everything that a user can get wrong ends here."""
    states = _check_states(states)
    tokens, features = states.shape[-2:]
    batch = states.shape[:-2]
    rows = math.prod(batch)
    call = Call(
        implementation=_check_implementation(implementation),
        log_states=boolean("log_states", log_states),
        scale_limit=None if scale_limit is None else one_of("scale_limit", scale_limit, SCALE_LIMITS),
        log_range=_log_range(log_states, log_bound, scale_limit),
        sharpen=boolean("sharpen", sharpen),
        axis_name=_check_axis(axis_name),
    )
    pieces = None if segments is None else _check_segments(states, *segments)
    scores = jnp.zeros((*batch, tokens, 1), states.dtype) if scores is None else check_scores(scores, batch, tokens)
    heads = scores.shape[-1]
    divides(features, heads)
    scores = scores.reshape(rows, tokens, *_heads(heads), 1)
    if mask is not None:
        mask = check_mask(mask, batch, tokens).reshape(rows, tokens, *_heads(heads, 1), 1)
    dtype = compute_dtype(states, scores)
    p = _check_p(p, features, heads, dtype)
    states = states.reshape(rows, tokens, *_heads(heads), features // heads)
    inputs = Inputs(states, scores, p, mask, pieces)
    reason = _dispatch.BACKENDS[call.implementation].unsupported(call, inputs)
    if reason is not None:
        raise NotImplementedError(f"implementation={call.implementation!r} cannot take these inputs: {reason}")
    return Checked(call, inputs, batch if pieces is None else pieces.last.shape, tokens, features)


def check_attention(
    scores: ArrayLike, p: ArrayLike, *, mask: ArrayLike | None, sharpen: bool
) -> tuple[tuple[int, ...], Call, Inputs]:
    """Scores alone -> their shape, a call and canonical inputs; the last axis is heads when p is [H]."""
    scores = floating("scores", scores)
    headed = jnp.ndim(p) == 1
    if scores.ndim < 1 + headed:
        raise ValueError(f"scores must have shape [*B T], or [*B T H] with p [H], got {scores.shape}; add the axes.")
    *batch, tokens, heads = scores.shape if headed else (*scores.shape, 1)
    rows = math.prod(batch)
    if mask is not None:
        mask = check_mask(mask, tuple(batch), tokens).reshape(rows, tokens, *_heads(heads, 1), 1)
    p = _check_p(p, heads, heads, compute_dtype(scores))
    call = Call(implementation=_dispatch.best(), sharpen=boolean("sharpen", sharpen))
    canonical = scores.reshape(rows, tokens, *_heads(heads), 1)
    return scores.shape, call, Inputs(canonical, canonical, p, mask)


def interval(argument: str, lower: float, upper: float) -> None:
    """Raise unless 0 < lower < upper < inf."""
    if not 0 < lower < upper < math.inf:
        raise ValueError(
            f"{argument} needs 0 < lower < upper < inf, got ({lower}, {upper}); pass (0.05, 16) for example."
        )


def initial_exponent(p_init: float, exponent: str, allowed: tuple[float, float]) -> float:
    """``p_init`` if the parametrisation can take it."""
    if isinstance(p_init, bool) or not isinstance(p_init, int | float | np.floating):
        raise TypeError(f"p_init must be a number, got {type(p_init).__name__}.")
    lower, upper = allowed
    if not (lower < p_init < upper or (exponent == "fixed" and abs(p_init) == math.inf)):
        raise ValueError(
            f'p_init={p_init} is outside the range ({lower}, {upper}) of exponent="{exponent}"; '
            'use exponent="bounded" for 0.05 < p < 16, "raw" or "fixed" for any p.'
        )
    return float(p_init)


def last_axis(argument: str, value: Array, features: int) -> None:
    """Raise unless the last axis has the size that the module was made for."""
    if value.ndim < 2 or value.shape[-1] != features:
        raise ValueError(
            f"{argument} must have shape [*B T D] with D = {features}, got {value.shape}; "
            "make the module with features equal to the last axis."
        )
