"""Every check on what a user passes. A check raises, or returns the value as the type that it is now known to have.

TypeError for a wrong dtype or kind, ValueError for a wrong shape or value. A message is one sentence that names the
argument, what was expected, what came, and the fix; nothing here computes anything but that sentence.
"""

import difflib
import math
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lnpool._formulas.scale import SCALE_LIMITS

Name = TypeVar("Name", bound=str)
Shape = tuple[Any, ...]  # an exported program may have symbolic sizes

_LARGEST_INDEX = int(np.iinfo(np.int32).max)
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def _kind(value: object) -> str:
    return "a numpy masked array" if isinstance(value, np.ma.MaskedArray) else type(value).__name__


def one_of(argument: str, value: object, allowed: Iterable[Name]) -> Name:
    """One of the names; the error for a misspelt one names the nearest name."""
    names = list(allowed)
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, one of {', '.join(map(repr, names))}, got {_kind(value)}.")
    for name in names:
        if value == name:
            return name
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]!r}" if close else ""
    raise ValueError(f"{argument} must be one of {', '.join(map(repr, names))}, got {value!r}{hint}.")


def positive_integer(argument: str, value: object) -> int:
    """An integer >= 1 that indexes an array."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} must be a static integer, got {_kind(value)}; pass {argument}=1 or more.")
    if not 1 <= value <= _LARGEST_INDEX:
        raise ValueError(f"{argument} must be at least 1 and below 2**31, got {value}.")
    return int(value)


def boolean(argument: str, value: object) -> bool:
    """A Python bool: it is static, a traced value cannot choose the formula."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False (a static Python bool), got {_kind(value)}.")
    return value


def instance(argument: str, value: Any, kind: type, fix: str) -> None:
    """An object of one class."""
    if not isinstance(value, kind):
        raise TypeError(f"{argument} must be an {kind.__name__}, got {_kind(value)}; pass {fix}.")


def divides(features: int, heads: int) -> None:
    """Features that split evenly over the heads."""
    if features % heads:
        raise ValueError(
            f"heads must divide the features: {features} features over {heads} heads leave {features % heads} over; "
            "choose a number of heads that divides them."
        )


def array(argument: str, value: object) -> None:
    """An array that JAX can hold as it is."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{argument} must be a plain array, got a numpy masked array; pass {argument}.data, and mask= for tokens."
        )
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{argument} must be an array, got {_kind(value)}; pass jnp.asarray({argument}).")
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        raise TypeError(
            f"{argument} must have the byte order of this machine, got {value.dtype.str}; "
            f"pass {argument}.astype({argument}.dtype.newbyteorder('='))."
        )


def floating(argument: str, value: object) -> None:
    """A real floating-point array."""
    array(argument, value)
    dtype: Any = value.dtype  # type: ignore[attr-defined]  # an array, checked above
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 8:
        raise TypeError(f"{argument} must be floating point, got {dtype}; pass {argument}.astype(jnp.float32).")


def states(value: Any) -> None:
    """States [*B T D]."""
    floating("states", value)
    if value.ndim < 2:
        raise ValueError(f"states must have shape [*B T D], rank 2 or more, got {value.shape}; pass states[None].")
    if value.shape[-2] == 0:
        raise ValueError(f"states must hold at least one token, got shape {value.shape}; mask empty texts instead.")
    if value.shape[-1] == 0:
        raise ValueError(f"states must have at least one feature, got shape {value.shape}; pass [*B T D] with D >= 1.")


def features_of(argument: str, value: Any, features: int) -> None:
    """States [*B T D] with the D that a module was made for."""
    floating(argument, value)
    if value.ndim < 2 or value.shape[-1] != features:
        raise ValueError(
            f"{argument} must have shape [*B T D] with D = {features}, got {value.shape}; "
            "make the module with features equal to the last axis."
        )


def scores(value: Any, leading: Shape) -> None:
    """Scores [*B T] or [*B T H]; ``leading`` is [*B T]."""
    floating("scores", value)
    heads = value.shape[len(leading) :]
    if value.shape[: len(leading)] != leading or len(heads) > 1 or 0 in heads:
        raise ValueError(
            f"scores must have shape [*B T] = {leading} or [*B T H] = {(*leading, 'H')} with one head or more to fit "
            f"the states, got {value.shape}; for one scorer drop its last axis, scores[..., 0]."
        )


def scores_alone(value: Any, heads: int | None) -> None:
    """Scores without states: [*B T], or [*B T H] for H heads."""
    floating("scores", value)
    if value.ndim < (1 if heads is None else 2):
        raise ValueError(f"scores must have shape [*B T], or [*B T H] with p [H], got {value.shape}; add the axes.")
    if 0 in value.shape[-1 if heads is None else -2 :]:
        raise ValueError(f"scores must hold at least one token and head, got shape {value.shape}; mask empty texts.")


def mask(value: Any, leading: Shape) -> None:
    """Mask [*#B T]; ``leading`` is [*B T]."""
    if value is None:
        return
    array("mask", value)
    if value.dtype != bool:
        raise TypeError(f"mask must be boolean, True = real token, got {value.dtype}; pass mask.astype(bool).")
    fits = 1 <= value.ndim <= len(leading) and value.shape[-1] == leading[-1]
    fits = fits and all(m in (1, b) for m, b in zip(value.shape[-2::-1], leading[-2::-1], strict=False))
    if not fits:
        raise ValueError(
            f"mask must have shape [*#B T], broadcastable to {leading} with all {leading[-1]} tokens, "
            f"got {value.shape}; pass one value a token."
        )


def exponent(p: Any) -> None:
    """A real number or a floating-point array."""
    if isinstance(p, bool) or not isinstance(p, int | float | jax.Array | np.ndarray | np.generic):
        raise TypeError(f"p must be a number or an array, got {_kind(p)}; pass jnp.asarray(p).")
    if isinstance(p, int):
        if abs(p) > sys.float_info.max:
            raise ValueError(f"p must be in the range of a float, got an integer of {p.bit_length()} bits; pass inf.")
    elif not isinstance(p, float):
        floating("p", p)


def exponent_shape(shape: Shape, features: int, heads: int) -> None:
    """One exponent, one for each feature, or one for each head."""
    if shape not in ((), (features,), (heads,)):
        raise ValueError(
            f"p must be a scalar, one exponent per feature [D] = ({features},) or per head [H] = ({heads},), "
            f"got shape {shape}; heads come from the last axis of scores."
        )


def kind_of_states(scale_limit: object, log_states: object, log_bound: Any) -> None:
    """What the states are: h, log h with or without a promised bound, or raw numbers for a scale limit."""
    boolean("log_states", log_states)
    if scale_limit is not None:
        one_of("scale_limit", scale_limit, SCALE_LIMITS)
        if log_states:
            raise ValueError("scale_limit makes log states from raw ones, got log_states=True too; drop one of them.")
        if log_bound is not None:
            raise ValueError("log_bound must be None with a scale_limit, whose bound is known; drop log_bound.")
    if log_bound is None:
        return
    if isinstance(log_bound, bool) or not isinstance(log_bound, int | float | np.floating):
        raise TypeError(f"log_bound must be a static Python float, got {_kind(log_bound)}; pass a number.")
    if not log_states:
        raise ValueError("log_bound bounds |log h|, so it needs log_states=True and log h as the states.")
    if not 0 < log_bound <= _LARGEST_FLOAT:
        raise ValueError(f"log_bound must be positive and finite, got {log_bound}; pass None where no bound is known.")


def axis_name(value: object) -> None:
    """None, or the name of an axis of the shard_map around this call."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"axis_name must be the name of one shard_map axis, got {_kind(value)}; pass a string.")
    try:
        lax.axis_size(value)
    except NameError:
        raise ValueError(
            f"axis_name={value!r} is no axis here; call inside jax.shard_map over a mesh that has it."
        ) from None


def segments(states: Any, segment_ids: Any, num_segments: object) -> None:
    """Packed states [N D] with sorted ids [N]; traced ids cannot be looked at."""
    if states.ndim != 2:
        raise ValueError(f"packed states must have shape [N D], got {states.shape}; use jax.vmap for more axes.")
    array("segment_ids", segment_ids)
    if not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise TypeError(f"segment_ids must be integers, got {segment_ids.dtype}; pass segment_ids.astype(jnp.int32).")
    if segment_ids.shape != states.shape[:1]:
        raise ValueError(
            f"segment_ids must have shape [N] = {states.shape[:1]}, got {segment_ids.shape}; pass one id a token."
        )
    positive_integer("num_segments", num_segments)
    known = None if isinstance(segment_ids, jax.core.Tracer) else np.asarray(segment_ids)
    if known is not None and bool(np.any(known[1:] < known[:-1])):
        raise ValueError("segment_ids must be sorted, so that the tokens of a text lie together; sort both by the ids.")


def runs_here(implementation: str, reason: str | None) -> None:
    """An implementation that this machine can run."""
    if reason is not None:
        raise NotImplementedError(f"implementation={implementation!r} cannot run here: {reason}")


def takes_inputs(implementation: str, reason: str | None) -> None:
    """An implementation that has a way to run this call."""
    if reason is not None:
        raise NotImplementedError(f"implementation={implementation!r} cannot take these inputs: {reason}")


def interval(argument: str, lower: float, upper: float) -> None:
    """0 < lower < upper < inf."""
    if not 0 < lower < upper < math.inf:
        raise ValueError(
            f"{argument} needs 0 < lower < upper < inf, got ({lower}, {upper}); pass (0.05, 16) for example."
        )


def initial_exponent(p_init: Any, exponent: str, allowed: tuple[float, float]) -> None:
    """An exponent that the parametrisation can take, and float32 can hold."""
    if isinstance(p_init, bool) or not isinstance(p_init, int | float | np.floating):
        raise TypeError(f"p_init must be a number, got {_kind(p_init)}; pass a Python float.")
    lower, upper = allowed
    inside = lower < p_init < upper and -_LARGEST_FLOAT <= p_init <= _LARGEST_FLOAT
    if not (inside or (exponent == "fixed" and p_init in (math.inf, -math.inf))):
        raise ValueError(
            f'p_init must lie inside of the range ({lower}, {upper}) of exponent="{exponent}", got {p_init}; '
            'use exponent="positive" for any p > 0, "raw" or "fixed" for any p.'
        )


def float_dtype(argument: str, value: Any) -> None:
    """A floating-point dtype, or None."""
    if value is None:
        return
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        raise TypeError(f"{argument} must be a dtype, got {value!r}; pass jnp.float32 for example.") from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{argument} must be a floating-point dtype, got {dtype}; pass jnp.float32 for example.")
