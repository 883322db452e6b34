"""Packed texts: what `pool_packed` gives for each text is what `pool` gives for it alone, in value and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnpool
from tests.op.running import REVERSE, float64, jitted, on_host, random_cotangent
from tests.op.tolerances import CONFORMANCE, SAME_FORMULA, SECOND_ORDER, assert_agrees

D = 6
LENGTHS = {
    "mixed": [5, 0, 40, 1, 17, 0, 130],
    "all in one": [0, 0, 70],
    "words": [1, 3, 1],
    "sentences": [7, 9, 8, 11, 6, 8],
}
FORMS = {
    "linear": {},
    "bounded": {"log_states": True, "log_bound": 1.0},
    "tanh": {"scale_limit": "tanh", "sharpen": False},
}
EXPONENTS = {"0": 0.0, "-1.3": -1.3, "per head": [1.5, -0.7], "per feature": [0.5, 1.0, 2.0, 3.0, 8.0, -2.0]}
forms = pytest.mark.parametrize("form", FORMS)


def inputs(lengths, form="linear", heads=(), seed=0, features=D, dtype="float32"):
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((sum(lengths), features))
    states = {"linear": np.exp(raw), "bounded": np.tanh(raw), "tanh": raw}[form]
    scores = rng.standard_normal((sum(lengths), *heads))
    ids = np.repeat(np.arange(len(lengths)), lengths)
    return [jnp.asarray(states, dtype), jnp.asarray(scores, jnp.float32)], ids


def packed(ids, count, states, scores, p, cotangent, **options):
    def pool(states, scores, p):
        return lnpool.pool_packed(states, scores, p, segment_ids=ids, num_segments=count, **options)

    value, pullback = jax.vjp(pool, states, scores, p)
    return (value, *pullback(cotangent))


def text_by_text(ids, count, states, scores, p, cotangent, mask=None, **options):
    """(r, dstates, dscores, dp) by the reference in float64, a text a padded row."""
    place = np.arange(len(ids)) - np.searchsorted(ids, ids)
    keep = np.isin(ids, range(count)) & (True if mask is None else np.asarray(mask))
    at = (ids[keep], place[keep])

    def padded(x):
        rows = np.zeros((count, max(place) + 1, *x.shape[1:]))
        rows[at] = np.asarray(x, float)[keep]
        return jnp.asarray(rows)

    real = np.asarray(padded(np.ones(len(ids))), bool)
    p, cotangent = (jnp.asarray(x, jnp.float64) for x in (p, cotangent))
    run = jitted(implementation="reference", **options)
    value, dstates, dscores, dp = on_host(run(padded(states), padded(scores), p, jnp.asarray(real), cotangent))
    back = [np.zeros(x.shape) for x in (states, scores)]
    for packed_gradient, rows in zip(back, (dstates, dscores), strict=True):
        packed_gradient[keep] = rows[at]
    return value, *back, dp


def check(lengths, form, p, implementation="xla", heads=(), features=D, dtype="float32", **options):
    """A constant exponent: XLA compiles the form that it chooses, and no other."""
    (states, scores), ids = inputs(lengths, form, heads, features=features, dtype=dtype)
    p, cotangent = np.asarray(p, np.float32), random_cotangent((len(lengths), features)).astype(dtype)
    options |= FORMS[form]

    @jax.jit
    def run(states, scores, cotangent):
        every = {"implementation": implementation} | options
        return packed(ids, len(lengths), states, scores, jnp.asarray(p), cotangent, **every)

    got = on_host(run(states, scores, cotangent))
    with float64():
        want = text_by_text(ids, len(lengths), states, scores, p, cotangent, **options)
    for name, x, y in zip(("value", "dstates", "dscores", "dp"), got, want, strict=True):
        rounded = name in ("value", "dstates")
        assert_agrees(x, y, CONFORMANCE[jnp.dtype(dtype if rounded else "float32")], name)


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "form"), [*itertools.product(LENGTHS, FORMS)])
def test_every_text_is_pooled_as_if_alone(name, form):
    check(LENGTHS[name], form, 2.5)


@pytest.mark.sampled(12)
@forms
@pytest.mark.parametrize("name", EXPONENTS)
def test_every_exponent(name, form):
    heads = (2,) if name == "per head" else ()
    check(LENGTHS["mixed"], form, EXPONENTS[name], heads=heads)


@pytest.mark.slow
@pytest.mark.parametrize("p", [2.5, 0.0])
def test_forward_mode(p):
    check(LENGTHS["mixed"], "tanh", p, implementation="xla_jvp")
    with float64():
        (states, scores), ids = inputs(LENGTHS["sentences"])
        a = [jnp.asarray(x, jnp.float64) for x in (states, scores, p)]

        def loss(*a):
            r = lnpool.pool_packed(*a, segment_ids=ids, num_segments=6, implementation="xla_jvp")
            return jnp.sum(r * random_cotangent((6, D), np.float64))

        _, forward = jax.jvp(loss, a, a)
        reverse = jax.grad(loss, (0, 1, 2))(*a)
        assert_agrees(forward, sum(jnp.vdot(x, d) for x, d in zip(a, reverse, strict=True)), SECOND_ORDER)


def test_mask_and_tokens_of_no_text_change_nothing():
    (states, scores), ids = inputs([4, 40, 6])
    ids = np.where(ids == 2, 7, ids) - (np.arange(50) < 2)  # two tokens of text -1, six of text 7
    mask = np.arange(50) % 3 > 0
    lost = ~mask | (ids < 0) | (ids > 1)
    cotangent = random_cotangent((2, D))

    def run(states, scores):
        return packed(ids, 2, states, scores, jnp.float32(1.7), cotangent, mask=jnp.asarray(mask))

    clean = run(states, scores)
    poisoned = run(jnp.where(lost[:, None], jnp.nan, states), jnp.where(lost, jnp.inf, scores))
    for x, y in zip(poisoned, clean, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.asarray(clean[1])[lost].any()
    assert np.asarray(clean[1])[~lost].all()
    with float64():
        kept = np.where(lost, -1, ids)
        want = text_by_text(kept, 2, states, scores, 1.7, cotangent, mask=jnp.asarray(mask))
    for x, y in zip(on_host(clean), want, strict=True):
        assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")])


def test_nan_stays_in_its_text():
    (states, scores), ids = inputs([30, 30, 30])
    pool = lambda s: lnpool.pool_packed(s, scores, 2.0, segment_ids=ids, num_segments=3)  # noqa: E731
    got, clean = np.array(pool(states.at[40, 2].set(jnp.nan))), np.asarray(pool(states))
    assert np.isnan(got[1, 2])
    got[1, 2] = clean[1, 2]
    np.testing.assert_array_equal(got, clean)


@pytest.mark.parametrize("form", ["linear", "bounded"])
def test_nothing_is_scattered(form):
    (states, scores), ids = inputs(LENGTHS["mixed"], form)
    cotangent = random_cotangent((7, D))
    run = jax.jit(lambda i, *a: packed(i, 7, *a, jnp.float32(2.5), cotangent, **FORMS[form]))
    program = run.lower(jnp.asarray(ids), states, scores).as_text()
    assert "gather" in program
    assert "scatter" not in program


@pytest.mark.slow
@pytest.mark.parametrize("implementation", REVERSE)
def test_vmap_and_one_trace(implementation):
    (states, scores), ids = inputs(LENGTHS["sentences"])
    traces = []

    @jax.jit
    def grads(ids, states, scores, p):
        traces.append(1)

        def loss(states, scores, p):
            r = lnpool.pool_packed(states, scores, p, segment_ids=ids, num_segments=6, implementation=implementation)
            return jnp.sum(r * random_cotangent((6, D)))

        return jax.grad(loss, (0, 1, 2))(states, scores, p)

    other = np.sort(np.asarray(ids)[::-1] % 4)
    stacked = [jnp.stack([states, states + 1]), jnp.stack([scores, -scores]), jnp.array([2.0, 0.5])]
    got = jax.vmap(grads)(jnp.stack([jnp.asarray(ids), jnp.asarray(other)]), *stacked)
    traces.clear()
    for row, row_ids in enumerate((ids, other)):
        want = grads(jnp.asarray(row_ids), *(x[row] for x in stacked))
        for x, y in zip(got, want, strict=True):
            assert_agrees(x[row], y, SAME_FORMULA)
    assert len(traces) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_ids_of_any_integer_type(dtype):
    ids = jnp.asarray([0, 0, 3, 99], dtype)
    r = lnpool.pool_packed(jnp.asarray([[1.0], [3.0], [2.0], [5.0]]), p=1.0, segment_ids=ids, num_segments=300)
    want = np.zeros((300, 1))
    want[[0, 3, 99], 0] = 2, 2, 5
    np.testing.assert_allclose(r, want, rtol=1e-6)
