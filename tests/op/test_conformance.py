"""Every case on every implementation against the reference in float64: value, value under vjp, gradients; N11."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnpool
from tests.op.cases import CASES, Arrays, Case, arrays, widened
from tests.op.running import ALL, REVERSE, float64, on_host, value_and_gradients
from tests.op.tolerances import CONFORMANCE, SAME_FORMULA, assert_agrees

HEADED = ("three_heads", "p_per_feature", "p_per_head", "bounded_p_head")
SHAPES = ("plain", "no_batch", "two_batch_dims", "mask_some", *HEADED)
shapes_only = pytest.mark.parametrize("case", [c for c in CASES if c.name in SHAPES], ids=lambda case: case.name)


def precision(case: Case):
    return float64(case.dtype == "float64")


@functools.cache
def program(**options):
    """(states, scores, p, mask, cotangent) -> (value alone, (value under vjp, dstates, dscores, dp)), compiled."""

    @jax.jit  # one compilation for both; the barrier keeps XLA from computing one from the other
    def run(states, scores, p, mask, cotangent):
        value = lnpool.pool(states, scores, p, mask=mask, **options)
        again = jax.lax.optimization_barrier((states, scores, p))
        return value, value_and_gradients(*again, cotangent, mask=mask, **options)

    return run


def call(case: Case, a: Arrays, implementation: str):
    """What `program` returns of a case; cases that differ in numbers alone share a compilation."""
    return program(implementation=implementation, **case.kwargs())(*jax.tree.map(jnp.asarray, tuple(a)))


@functools.cache
def expected(case: Case):
    """float64 reference, on the host; NaN gradients of the oracle would excuse nothing, so they are refused."""
    with float64():
        value, results = on_host(call(case, widened(arrays(case)), "reference"))
    for x in jax.tree.leaves((value, results)):
        assert np.isfinite(x).all(), "the reference itself is not finite"
    return value, results


@pytest.mark.sampled(90)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("implementation", REVERSE)
def test_against_reference(case, implementation):
    with precision(case):
        a = arrays(case)
        alone, results = call(case, a, implementation)
    assert_right(case, a, alone, results)


def assert_right(case: Case, a: Arrays, alone, results):
    """Dtypes, shapes, and the numbers of the reference."""
    assert alone.dtype == results[0].dtype == a.states.dtype
    assert alone.shape == (*case.batch, case.features)
    for got, like in zip(results[1:], (a.states, a.scores, a.p), strict=True):
        assert (got is None) == (like is None)
        assert got is None or (got.dtype == like.dtype and got.shape == like.shape)
    want_alone, want = expected(case)
    agreement = CONFORMANCE[jnp.dtype(case.dtype)]
    assert_agrees(alone, want_alone, agreement, "value")
    for name, got, expect in zip(("value under vjp", "dstates", "dscores", "dp"), results, want, strict=True):
        if name == "dstates" and case.states == "zeros":  # the oracle takes log h: test_exact has the conventions at 0
            got, expect = (np.where(a.states == 0, 0, x) for x in (got, expect))
        if got is not None:
            narrow = CONFORMANCE[jnp.dtype("float32")] if name == "dp" and case.dtype != "float64" else agreement
            assert_agrees(got, expect, narrow, name)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("implementation", REVERSE)
@shapes_only
def test_vmap_of_a_row_is_the_batch(case, implementation):
    """vmap over a new axis, twice nested, equals leading batch axes."""
    a = arrays(case)
    options = case.kwargs() | {"implementation": implementation}
    factors = jnp.asarray([[0.5, 1.0, 0.75], [1.0, 0.25, 0.5]])
    states, scores = (factors.reshape(2, 3, *(1,) * x.ndim) * x[None, None] for x in (a.states, a.scores))
    mask = None if a.mask is None else jnp.broadcast_to(a.mask, a.scores.shape[: a.mask.ndim])

    def one(s, z):
        return lnpool.pool(s, z, jnp.asarray(a.p), mask=mask, **options)

    nested = jax.jit(jax.vmap(jax.vmap(one)))(states, scores)
    wide_mask = None if mask is None else jnp.broadcast_to(mask, (2, 3, *mask.shape))
    whole = jax.jit(lambda s, z: lnpool.pool(s, z, jnp.asarray(a.p), mask=wide_mask, **options))(states, scores)
    assert_agrees(nested, whole, SAME_FORMULA)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize("convert", [float, np.float32, jnp.asarray], ids=["float", "numpy", "array"])
def test_n11_one_trace_for_all_exponents(convert, implementation):
    a = arrays(CASES[0])
    traces = []

    @jax.jit
    def run(states, scores, p):
        traces.append(None)
        return lnpool.pool(states, scores, p, implementation=implementation)

    for p in (1.5, 2.0, 3.0):
        run(jnp.asarray(a.states), jnp.asarray(a.scores), convert(p))
    assert len(traces) == 1


@pytest.mark.parametrize("implementation", REVERSE)
def test_n11_eager_calls_compile_once(implementation):
    """The op compiles itself: new values of p, or a python float, must not compile it anew."""
    a = arrays(Case("n11", tokens=11, features=4))
    states, scores = jnp.asarray(a.states), jnp.asarray(a.scores)
    lnpool.pool(states, scores, 1.5, implementation=implementation)
    with count_compilations() as count:
        for p in (2.0, 3.0, 4.5):
            lnpool.pool(states, scores, p, implementation=implementation)
    assert count == []


class count_compilations(list):  # noqa: N801
    """A list that gets one item for each compilation inside the context."""

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        self.active = True
        return self

    def __exit__(self, *_):
        self.active = False

    def _listen(self, event, duration, **_):
        if self.active and event == "/jax/core/compile/backend_compile_duration":
            self.append(duration)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_strict_dtype_promotion(dtype, implementation):
    """A caller who forbids implicit promotion can still use every dtype: the op converts on purpose."""
    case = Case("strict", dtype=dtype, mask="some")
    with precision(case), jax.numpy_dtype_promotion("strict"):
        call(case, arrays(case), implementation)
