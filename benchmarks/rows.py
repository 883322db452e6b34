"""What is measured in JAX. A row is a function (states, scores, p, mask) -> pooled, and its form of the states."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import logsumexp

import lnpool
from benchmarks.shapes import BOUND, Arrays

READ, COPY, ATTENTION = "floor:read", "floor:copy", "jax:attention"
OURS, AGAIN = "xla:log-bound", "xla:log-bound-again"
YARDSTICKS = (READ, COPY, ATTENTION)  # measured with every selection: the ratios are to them

_SLOW_ROADS = ("xla_jvp", "reference")  # for forward mode and for tests: one form of each is enough
_SKIPS_PADDING = ("pallas",)  # whose kernels end at the last token of a text


class Row(NamedTuple):
    """One line of the table."""

    name: str
    about: str
    pool: Callable[..., Any]
    states: str = "log"  # a key of Arrays.states
    exponent: str = "scalar"  # a key of Arrays.p
    backward: bool = True  # whether there is something to differentiate
    donated: bool = False  # whether to time the gradient in memory of an earlier call too
    skips_padding: bool = False
    packed: bool = False  # takes the number of rows first, then the real tokens alone: [N D], [N], p, the row of each
    masks: bool = True  # whether it can leave padding out


def prepare(row: Row, arrays: Arrays) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the function of a row and its inputs: states, scores, p, and the mask or the row of each token."""
    states, scores, mask, pool = arrays.states[row.states], arrays.scores[row.exponent], arrays.mask, row.pool
    if row.packed:
        kept = np.ones(scores.shape[:2], bool) if mask is None else mask
        states, scores, mask = states[kept], scores[kept], np.nonzero(kept)[0]
        pool = functools.partial(pool, len(kept))
    return pool, (states, scores, arrays.p[row.exponent], mask)


def _keep(mask: Array | None, x: Array, otherwise: float) -> Array:
    return x if mask is None else jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, otherwise)


def _attention(scores: Array, mask: Array | None) -> Array:
    return jax.nn.softmax(_keep(mask, scores, -jnp.inf), axis=1)


def read(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """One pass over the states."""
    return jnp.sum(states)


def copy(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """One pass that also writes as much."""
    return states * p


def mean(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """Mean of the tokens."""
    total = jnp.sum(_keep(mask, states, 0), axis=1)
    return total / (states.shape[1] if mask is None else jnp.sum(mask, axis=1)[:, None])


def maximum(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """Largest token."""
    return jnp.max(_keep(mask, states, -jnp.inf), axis=1)


def attention(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """Attention pooling."""
    return jnp.einsum("bt,btd->bd", _attention(scores, mask), _keep(mask, states, 0))


def naive(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """The formula as printed in the paper."""
    a = _attention(scores, mask)[..., None]
    return (jnp.sum((a * states) ** p, axis=1) / jnp.sum(a**p, axis=1)) ** (1 / p)


def log_sum_exp(states: Array, scores: Array, p: Array, mask: Array | None) -> Array:
    """The formula on log states."""
    z = _keep(mask, scores, -jnp.inf)[..., None]
    return jnp.exp((logsumexp(p * (states + z), axis=1) - logsumexp(p * z, axis=1)) / p)


def _of_implementation(name: str, options: dict[str, Any]) -> Callable[..., Array]:
    return lambda states, scores, p, mask: lnpool.pool(states, scores, p, mask=mask, implementation=name, **options)


def packed(name: str, rows: int, states: Array, scores: Array, p: Array, ids: Array) -> Array:
    """Pool texts without padding, log states with log_bound."""
    of_texts: dict[str, Any] = {"segment_ids": ids, "num_segments": rows}
    return lnpool.pool_packed(states, scores, p, implementation=name, log_states=True, log_bound=BOUND, **of_texts)


_FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "log-bound": ("log states, log_bound", {"log_states": True, "log_bound": BOUND}, {"states": "log"}),
    "linear": ("linear states", {}, {"states": "linear"}),
    "log": ("log states, no bound", {"log_states": True}, {"states": "log"}),
    "exp": (
        "signed states, scale_limit exp, log_output",
        {"scale_limit": "exp", "log_output": True},
        {"states": "raw"},
    ),
    "tanh": ("raw states, scale_limit tanh", {"scale_limit": "tanh"}, {"states": "raw"}),
    "feature": (
        "log states, log_bound, p per feature",
        {"log_states": True, "log_bound": BOUND},
        {"exponent": "feature"},
    ),
    "head": ("log states, log_bound, p per head", {"log_states": True, "log_bound": BOUND}, {"exponent": "head"}),
    "bf16": ("log states in bfloat16, log_bound", {"log_states": True, "log_bound": BOUND}, {"states": "bf16"}),
}


def _of_lnpool() -> list[Row]:
    """Every implementation that runs on this machine, in its input forms."""
    rows = []
    for name in (name for name, why_not in lnpool.implementations().items() if why_not is None):
        skips = name in _SKIPS_PADDING
        for form in list(_FORMS)[: 1 if name in _SLOW_ROADS else None]:
            words, options, inputs = _FORMS[form]
            pool = _of_implementation(name, options)
            about, donated = f'lnpool "{name}", {words}', form == "log-bound" and name not in _SLOW_ROADS
            rows.append(Row(f"{name}:{form}", about, pool, donated=donated, skips_padding=skips, **inputs))
        if name not in _SLOW_ROADS:
            about = f'lnpool "{name}", packed texts, log states, log_bound'
            rows.append(Row(f"{name}:packed", about, functools.partial(packed, name), skips_padding=True, packed=True))
    return rows


def jax_rows() -> list[Row]:
    """Every row in JAX, yardsticks first, in the order of the table."""
    ours = _of_lnpool()
    (first,) = (row for row in ours if row.name == OURS)
    return [
        Row(READ, "read floor: a sum over the states", read, backward=False),
        Row(COPY, "warm copy: the states times a number, into a donated buffer", copy, backward=False),
        Row(ATTENTION, "attention pooling, einsum", attention, states="linear", donated=True),
        Row("jax:mean", "mean of the tokens", mean, states="linear"),
        Row("jax:max", "largest token", maximum, states="linear"),
        Row("jax:naive", "the power formula as printed, autodiff", naive, states="linear"),
        Row("jax:logsumexp", "log-sum-exp on log states, autodiff", log_sum_exp),
        *ours,
        first._replace(name=AGAIN, donated=False, about="the noise: " + first.about + ", a second time"),
    ]
