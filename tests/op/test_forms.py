"""Which form ran, on both sides of every seam; log output; and batches cut by rows, which partition themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lnpool
from lnpool import _canonical
from lnpool._formulas import single_pass
from lnpool._xla import rule
from tests.op.oracle import WIDE, solve
from tests.op.running import REVERSE, jitted_rows, value_and_gradients
from tests.op.tolerances import BESIDE_ZERO, CONFORMANCE, SAME_FORMULA, SCALED_ERROR, U32, assert_agrees

FORMS = {
    "linear": {},
    "log": {"log_states": True},
    "bounded": {"log_states": True, "log_bound": 4.0},
    **{name: {"scale_limit": name} for name in lnpool.SCALE_LIMITS},
}
F32 = CONFORMANCE[jnp.dtype("float32")]


def rows(form, batch=3, tokens=9, features=5, seed=0):
    """States of a form, scores."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((batch, tokens, features))
    states = {"linear": np.exp(raw), "bounded": np.clip(raw, -4, 4)}.get(form, raw)
    return jnp.asarray(states, jnp.float32), jnp.asarray(rng.standard_normal((batch, tokens)), jnp.float32)


def single(states, scores, p, **options):
    """Where the single pass served, of every pooled number [B D]."""
    defaults = {"scale_limit": None, "log_states": False, "log_bound": None, "sharpen": True, "implementation": "xla"}
    canonical = _canonical.pooling(states, scores, p, mask=None, **(defaults | options))
    return np.asarray(rule.forward(canonical.call, canonical.inputs)[1][1].single).reshape(states.shape[0], -1)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("form", FORMS)
def test_the_exponent_chooses_the_form(form):
    states, scores = rows(form)
    lower, upper = single_pass.EXPONENTS
    assert single(states, scores, 2.5, **FORMS[form]).all()
    assert single(states, scores, lower, **FORMS[form]).all()
    for p in (
        np.nextafter(np.float32(lower), np.float32(0)),
        np.nextafter(np.float32(upper), np.float32(np.inf)),
        -2.0,
    ):
        assert not single(states, scores, p, **FORMS[form]).any()


def test_both_forms_agree_on_both_sides_of_a_seam():
    """The exponents between which the form changes; a zero state, and one far below the others, among the states."""
    (lower, upper), f32 = single_pass.EXPONENTS, np.float32
    states, scores = (np.array(x[:, :, 0] if x.ndim == 3 else x) for x in rows("linear", batch=3))
    states[1, 2], states[2, 4] = 0, 1e-6
    inside = np.repeat(f32([lower, upper]), 3)
    outside = np.repeat([np.nextafter(f32(lower), f32(0)), np.nextafter(f32(upper), f32(np.inf))], 3)
    run = jitted_rows(implementation="xla")
    both = [run(np.tile(states, (2, 1)), np.tile(scores, (2, 1)), p, np.ones((6, 9), bool), np.ones(6, f32))
            for p in (inside, outside)]  # fmt: skip
    size = ((1 + inside) * np.asarray(both[0][0]))[:, None]  # weights are known to p roundings
    for name, *sides in zip(("r", "dstates", "dscores", "dp"), *both, strict=True):
        x, y = (np.asarray(side).reshape(6, -1) for side in sides)
        np.testing.assert_array_less(np.abs(x - y), SCALED_ERROR[False] * U32 * (np.abs(y) + size), err_msg=name)
    assert both[0][1][1, 2] == both[1][1][1, 2] == 0


@pytest.mark.slow
@pytest.mark.parametrize("excess", [-0.5, 0.5])
def test_an_underflowing_sum_takes_the_exact_form_and_no_other_number_does(excess):
    """The largest state of one feature has an attention of about the smallest sum."""
    smallest = -np.log(single_pass.SMALLEST_SUM)
    states = jnp.asarray([[[0.0, 0.0], [-100.0, 0.0]], [[0.0, 0.0], [-1.0, 0.0]]], jnp.float32)
    scores = jnp.asarray([[0.0, smallest + excess], [0.0, 0.0]], jnp.float32)
    got = single(states, scores, 1.0, log_states=True)
    np.testing.assert_array_equal(got, [[excess < 0, True], [True, True]])
    g = jnp.ones((2, 2))
    both = value_and_gradients(states, scores, jnp.float32(1), g, log_states=True)
    want = value_and_gradients(states, scores, jnp.float32(1), g, log_states=True, implementation="reference")
    for name, x, y in zip(("r", "dstates", "dscores", "dp"), both, want, strict=True):
        assert_agrees(x, y, F32, name)
    alone = value_and_gradients(states[1:], scores[1:], jnp.float32(1), g[1:], log_states=True)
    np.testing.assert_array_equal(both[0][1:], alone[0])


@pytest.mark.sampled(15)
@pytest.mark.parametrize("p", [0.01, 0.5, 1.0, 3.0, 200.0])
@pytest.mark.parametrize("form", ["linear", "exp", "tanh"])
def test_log_output_is_the_logarithm(form, p):
    states, scores = rows(form, seed=4)
    g = jnp.ones((3, 5))
    got = value_and_gradients(states, scores, jnp.float32(p), g, log_output=True, **FORMS[form])
    r, *back = value_and_gradients(states, scores, jnp.float32(p), 1 / lnpool.pool(states, scores, p, **FORMS[form]),
                                   **FORMS[form])  # fmt: skip
    for x, y in zip(got, (jnp.log(r), *back), strict=True):
        assert_agrees(x, y, F32)


def test_exp_limit_with_log_output_goes_from_attention_to_the_maximum():
    states, scores = rows("exp", seed=2)
    states = 100 * states  # whose exponentials no float32 holds
    options = {"scale_limit": "exp", "log_output": True, "sharpen": False}
    attention = jnp.einsum("bt,btd->bd", jax.nn.softmax(scores), states)
    assert_agrees(lnpool.pool(states, scores, 0.0, **options), attention, F32)
    np.testing.assert_array_equal(lnpool.pool(states, scores, jnp.inf, **options), jnp.max(states, axis=1))
    ids = jnp.repeat(jnp.arange(3), 9)
    flat = lnpool.pool_packed(
        states.reshape(27, 5), scores.reshape(27), 2.0, segment_ids=ids, num_segments=3, **options
    )
    assert_agrees(flat, lnpool.pool(states, scores, 2.0, **options), SAME_FORMULA)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_log_of_nothing(p):
    gradient = jax.value_and_grad(lambda h: lnpool.pool(h, None, p, log_output=True)[0])
    value, dh = gradient(jnp.zeros((4, 1)))
    assert value == -jnp.inf
    np.testing.assert_array_equal(dh, 0)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize("form", ["linear", "log"])
def test_log_output_beside_a_zero(form, implementation):
    """As p goes to 0, log r is log(1 - v at the zero)/p: far beyond the floats that r could be."""
    p = np.float32([0.01, 1e-3, 1e-6, 1e-10, 1e-12, 1e-15, 1e-18, 1e-20, 1e-30])
    h, scores = np.float32([0, 2, 0.7]), np.float32([[0, 1, -0.5], [-30, 1, -0.5]])
    states = h if form == "linear" else np.log(h, where=h > 0, out=np.full_like(h, -np.inf))
    p, scores = np.tile(p, 2), np.repeat(scores, len(p), axis=0)
    run = jitted_rows(implementation=implementation, sharpen=False, log_output=True, log_states=form == "log")
    ones = np.ones_like(scores)
    value, dstates, dz, dp = (np.asarray(x) for x in run(states * ones, scores, p, ones > 0, np.ones_like(p)))
    exact = solve(np.log(h.astype(WIDE), where=h > 0, out=np.full(3, WIDE(-np.inf))) * ones, scores, p, ones > 0, False)
    by_states = exact.w if form == "log" else np.where(h > 0, exact.w / np.where(h > 0, h, 1), 0)
    held = np.abs(exact.slope[:, 0]) < np.finfo(np.float32).max  # the others are infinite
    close = functools.partial(np.testing.assert_allclose, rtol=BESIDE_ZERO)
    close(value, exact.log_r[:, 0])
    close(dstates, by_states)
    close(dz, exact.b)
    close(dp[held], exact.slope[held, 0])
    assert held.sum() >= 14
    assert np.isposinf(dp[~held]).all()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("with_scores", [True, False])
@pytest.mark.parametrize("tokens", [16, pytest.param(256, marks=pytest.mark.slow)])  # without and with a loop
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_a_batch_cut_by_rows_partitions_itself(axis_type, tokens, with_scores):
    states, scores = rows("linear", batch=16, tokens=tokens, features=32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(getattr(AxisType, axis_type),))
    g = jnp.ones((16, 32))

    def run(states, scores, g):
        return value_and_gradients(states, scores if with_scores else None, jnp.float32(2), g)

    want = jax.jit(run)(states, scores, g)
    with jax.set_mesh(mesh):
        cut = [jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))) for x in (states, scores, g)]
        program = jax.jit(run).lower(*cut).compile()
        got = program(*cut)
    assert "all-gather" not in program.as_text()
    for x in got[:2]:
        assert x.sharding.spec[0] == "data"
    jax.tree.map(lambda x, y: assert_agrees(x, y, F32), got, want)
