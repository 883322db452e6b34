"""The shared conformance cases: every option and shape of `pool`, as one table. Arrays are made from the name."""

import zlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import lnpool


class Case(NamedTuple):
    """One call of `pool`. `p` is a number, or "feature" / "head" for one exponent each."""

    name: str
    batch: tuple[int, ...] = (3,)
    tokens: int = 7
    features: int = 6
    heads: int | None = None  # None: scores [*B T]; 0: no scores
    p: float | str = 2.0
    mask: str | None = None  # some, row (one row fully masked), all, shared ([1 T]), nan (some, with NaN padding)
    states: str = "linear"  # linear, zeros, log, raw
    dtype: str = "float32"
    options: tuple = ()

    def kwargs(self) -> dict:
        return dict(self.options)


def _options(**options) -> tuple:
    return tuple(options.items())


LOG = _options(log_states=True)
BOUNDED = _options(log_states=True, log_bound=1.0)
FIXED = _options(sharpen=False)

CASES = (
    Case("plain"),
    Case("one_token", tokens=1),
    Case("odd_tokens", tokens=13, features=5),
    Case("long", batch=(2,), tokens=301, features=3),
    Case("one_feature", features=1),
    Case("wide", tokens=5, features=129),
    Case("no_batch", batch=()),
    Case("two_batch_dims", batch=(2, 3)),
    Case("single_row", batch=(1,)),
    Case("no_scores", heads=0),
    Case("no_scores_p_feature", heads=0, p="feature"),
    Case("one_head", heads=1),
    Case("three_heads", heads=3),
    Case("head_per_feature", heads=6),
    Case("p_per_feature", p="feature"),
    Case("p_per_head", heads=3, p="head"),
    Case("p_per_feature_with_heads", heads=2, p="feature"),
    Case("no_batch_heads", batch=(), heads=2, p="head"),
    Case("two_batch_dims_heads", batch=(2, 2), heads=3, p="head", mask="some"),
    *(Case(f"p={p}", p=p, mask="some") for p in (0.0, 1e-3, 0.3, 1.0, 7.5, 50.0, -0.5, -3.0, np.inf, -np.inf)),
    *(Case(f"mask_{kind}", mask=kind) for kind in ("some", "row", "all", "shared", "nan")),
    Case("mask_row_p_negative", mask="row", p=-2.0),
    Case("mask_nan_heads", mask="nan", heads=3, p="head"),
    Case("zeros", states="zeros"),
    Case("zeros_p1", states="zeros", p=1.0),
    Case("zeros_masked", states="zeros", mask="nan", p=1.5),
    Case("log", states="log", options=LOG),
    Case("log_p_feature", states="log", p="feature", options=LOG),
    Case("log_masked", states="log", mask="nan", options=LOG),
    Case("log_small_p", states="log", p=0.2, options=LOG),
    Case("bounded", states="log", options=BOUNDED),
    Case("bounded_p1", states="log", p=1.0, options=BOUNDED),
    Case("bounded_small_p", states="log", p=0.2, options=BOUNDED),
    Case("bounded_negative_p", states="log", p=-2.0, options=BOUNDED),
    Case("bounded_p30", states="log", p=30.0, options=BOUNDED),
    Case("bounded_p_feature", states="log", p="feature", options=BOUNDED),
    Case("bounded_p_feature_fixed_attention", states="log", p="feature", mask="some", options=(*BOUNDED, *FIXED)),
    Case("bounded_p_head", states="log", heads=3, p="head", options=BOUNDED),
    Case("bounded_masked", states="log", mask="nan", options=BOUNDED),
    Case("bounded_mask_row", states="log", mask="row", options=BOUNDED),
    Case("bounded_mask_all", states="log", mask="all", options=BOUNDED),
    Case("bounded_no_scores", states="log", heads=0, options=BOUNDED),
    Case("bounded_fixed_attention", states="log", options=(*BOUNDED, *FIXED)),
    Case("bounded_one_token", states="log", tokens=1, options=BOUNDED),
    *(Case(f"limit_{name}", states="raw", options=_options(scale_limit=name)) for name in lnpool.SCALE_LIMITS),
    *(
        Case(f"limit_{name}_p_feature", states="raw", p="feature", mask="nan", options=_options(scale_limit=name))
        for name in lnpool.SCALE_LIMITS
    ),
    *(
        Case(f"limit_{name}_p_head", states="raw", heads=2, p="head", options=_options(scale_limit=name))
        for name in ("tanh", "sigmoid")
    ),
    Case("limit_tanh_fixed_attention", states="raw", options=(*_options(scale_limit="tanh"), *FIXED)),
    *(Case(f"fixed_attention_p={p}", p=p, options=FIXED) for p in (0.0, 1.0, 3.0, -2.0, np.inf)),
    Case("fixed_attention_heads", heads=3, p="head", mask="row", options=FIXED),
    Case("bfloat16", dtype="bfloat16", mask="some"),
    Case("bfloat16_bounded", dtype="bfloat16", states="log", heads=2, options=BOUNDED),
    Case("bfloat16_tanh", dtype="bfloat16", states="raw", mask="nan", options=_options(scale_limit="tanh")),
    Case("float16", dtype="float16", mask="some"),
    Case("float16_p_feature", dtype="float16", p="feature"),
    Case("float64", dtype="float64", mask="some"),
    Case("float64_bounded", dtype="float64", states="log", heads=2, p="head", options=BOUNDED),
)  # fmt: skip


class Arrays(NamedTuple):
    """Host arrays of one case."""

    states: np.ndarray
    scores: np.ndarray | None
    p: np.ndarray
    mask: np.ndarray | None
    cotangent: np.ndarray


def _mask(case: Case, rng) -> np.ndarray | None:
    shape = (*case.batch, case.tokens)
    if case.mask is None:
        return None
    if case.mask == "all":
        return np.zeros(shape, bool)
    if case.mask == "shared":
        shape = (1,) * len(case.batch) + (case.tokens,)
    mask = rng.random(shape) < 0.6
    mask[..., 0] = True
    if case.mask == "row":
        mask[0] = False
    return mask


def _states(case: Case, rng) -> np.ndarray:
    shape = (*case.batch, case.tokens, case.features)
    if case.states == "raw":
        return 0.2 + rng.standard_normal(shape)
    if case.states == "log":
        return rng.uniform(-1, 1, shape)
    states = np.abs(rng.standard_normal(shape)) + 0.05
    return np.where(rng.random(shape) < 0.3, 0.0, states) if case.states == "zeros" else states


def _exponent(case: Case, rng) -> np.ndarray:
    size = {"feature": (case.features,), "head": (case.heads,)}.get(case.p, ())
    return np.asarray(rng.uniform(1.0, 6.0, size) if size else case.p)


def arrays(case: Case) -> Arrays:
    """Values are exact in the dtype of the case, so that every implementation sees the same numbers."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    mask, states = _mask(case, rng), _states(case, rng)
    scores = None
    if case.heads != 0:
        tail = () if case.heads is None else (case.heads,)
        scores = rng.standard_normal((*case.batch, case.tokens, *tail))
    if case.mask == "nan":
        hole = np.broadcast_to(~mask, states.shape[:-1])
        states = np.where(hole[..., None], rng.choice([np.nan, np.inf, -np.inf, -3.0], states.shape), states)
        if scores is not None:
            padding = rng.choice([np.nan, np.inf, -np.inf], scores.shape)
            scores = np.where(hole if scores.ndim == hole.ndim else hole[..., None], padding, scores)
    dtype = jnp.dtype(case.dtype)
    p_dtype = np.float64 if case.dtype == "float64" else np.float32
    shape = (*case.batch, case.features)
    cotangent = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 2.0, shape)
    return Arrays(
        states.astype(dtype),
        None if scores is None else scores.astype(dtype),
        _exponent(case, rng).astype(p_dtype),
        mask,
        cotangent.astype(dtype),
    )


def widened(a: Arrays) -> Arrays:
    """The same numbers in float64."""
    return Arrays(*(x if x is None or x.dtype == bool else x.astype(np.float64) for x in a))
