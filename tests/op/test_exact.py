"""N4: rows with a closed form, bit for bit. N5: continuity at p = 0 and across the branch. N9: ties."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.op import table
from tests.op.make_table import GROUPS
from tests.op.running import REVERSE, jitted, jitted_rows, random_cotangent
from tests.op.tolerances import BRANCH_JUMP, CLOSED_FORM, CONTINUITY

implementations = pytest.mark.parametrize("implementation", REVERSE)
exponents = pytest.mark.parametrize("p", GROUPS["linear"].exponents)
ROWS, N = 8, 11
LOG = {"log_states": True}
BOUNDED = {"log_states": True, "log_bound": 1.0}


def rows(seed, spread=1.0):
    """States, scores [ROWS N]."""
    rng = np.random.default_rng(seed)
    states = np.abs(rng.standard_normal((ROWS, N))) + 0.05
    return np.float32(states), np.float32(spread * rng.standard_normal((ROWS, N)))


def run(states, scores, p, implementation, mask=None, **options):
    """(r, dstates, dscores, dp, cotangent) of each row alone."""
    count = len(states)
    mask = np.ones(states.shape, bool) if mask is None else mask
    g = random_cotangent(count)
    p = jnp.broadcast_to(jnp.float32(p), (count,))
    compiled = jitted_rows(implementation=implementation, **options)
    results = compiled(jnp.asarray(states), jnp.asarray(scores), p, jnp.asarray(mask), g)
    return *map(np.asarray, results), np.asarray(g)


def softmax64(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.sampled(3)
@implementations
@exponents
def test_n4_equal_states(p, implementation):
    states, scores = rows(0)
    states = np.broadcast_to(states[:, :1], states.shape)
    r, dstates, dscores, dp, g = run(states, scores, p, implementation)
    np.testing.assert_array_equal(r, states[:, 0])
    np.testing.assert_array_equal(dscores, 0)
    np.testing.assert_array_equal(dp, 0)
    if abs(p) <= 10:  # a rounded p z is all that a weight can be computed from
        v = softmax64(np.float64(np.float32(p)) * scores)
        np.testing.assert_allclose(dstates, g[:, None] * v, rtol=CLOSED_FORM * (4 + 8 * abs(p)), atol=1e-30)


@implementations
@exponents
def test_n4_one_token(p, implementation):
    states, scores = rows(1)
    mask = np.arange(N) == np.arange(ROWS)[:, None]
    r, dstates, dscores, dp, g = run(np.where(mask, states, np.nan), scores, p, implementation, mask)
    np.testing.assert_array_equal(r, states[mask])
    np.testing.assert_array_equal(dstates, np.where(mask, g[:, None], 0))
    np.testing.assert_array_equal(dscores, 0)
    np.testing.assert_array_equal(dp, 0)


@pytest.mark.sampled(4)
@implementations
@exponents
@pytest.mark.parametrize("kind", ["all_zero", "all_masked"])
@pytest.mark.parametrize("options", [{}, LOG, BOUNDED], ids=["linear", "log", "bounded"])
def test_n4_nothing_to_pool(options, kind, p, implementation):
    states, scores = rows(2)
    zero = -np.inf if options else 0.0
    states = np.full_like(states, zero if kind == "all_zero" else np.nan)
    mask = np.full(states.shape, kind == "all_zero")
    *results, _ = run(states, scores, p, implementation, mask, **options)
    for x in results:
        np.testing.assert_array_equal(x, 0)


@implementations
def test_n4_zeros_at_p_one_have_the_softmax_weight_as_derivative(implementation):
    states, scores = rows(3)
    states[:, ::3] = 0
    r, dstates, _, _, g = run(states, scores, 1.0, implementation)
    v = softmax64(scores)
    np.testing.assert_allclose(dstates, g[:, None] * v, rtol=2 * CLOSED_FORM)
    np.testing.assert_allclose(r, (v * states).sum(-1), rtol=2 * CLOSED_FORM)


@pytest.mark.sampled(2)
@implementations
@pytest.mark.parametrize("group", ["linear", "fixed"])
def test_n4_conventions_of_the_table(group, implementation):
    """dr/dh where the exact number is infinite or a choice is 0; so is all of a row that pools to 0 by rule."""
    for e in table.run_rows(group, implementation, np.float32):
        f = list(table.load(group)["families"]).index(e.family)
        convention = np.moveaxis(table.load(group)["convention"][f], 1, -1)
        if e.output == "dstates":
            np.testing.assert_array_equal(e.got[convention], 0, err_msg=e.family)
        if e.family in ("all_zero", "all_masked"):
            np.testing.assert_array_equal(e.got, 0)


@implementations
@pytest.mark.parametrize(("p", "winner"), [(np.inf, np.argmax), (-np.inf, np.argmin)])
def test_n4_infinite_exponent_picks_one_state(p, winner, implementation):
    """Equal logits: the extremum itself, with a one-hot gradient."""
    states, _ = rows(4)
    scores = np.full_like(states, 0.625)
    r, dstates, dscores, dp, g = run(states, scores, p, implementation)
    one_hot = np.arange(N) == winner(states, -1)[:, None]
    np.testing.assert_array_equal(r, states[one_hot])
    np.testing.assert_array_equal(dstates, np.where(one_hot, g[:, None], 0))
    np.testing.assert_allclose(dscores, (g * r)[:, None] * (one_hot - 1 / N), rtol=CLOSED_FORM)
    np.testing.assert_array_equal(dp, 0)


@implementations
@pytest.mark.parametrize("p", [np.inf, -np.inf])
def test_n9_ties_at_infinity_are_shared(p, implementation):
    states, scores = rows(5)
    states[:, 1:4], scores[:, 1:4] = (9.0, 1.5) if p > 0 else (0.01, -1.5)
    r, dstates, dscores, dp, g = run(states, scores, p, implementation)
    one_third = np.isin(np.arange(N), (1, 2, 3)) / 3
    a = scores == (scores.max(-1) if p > 0 else scores.min(-1))[:, None]
    y = np.log(np.float64(states)) + scores
    assert (np.sort(np.sign(p) * y)[:, -4] < np.sort(np.sign(p) * y)[:, -3] - 1e-3).all(), "the three must win"
    np.testing.assert_allclose(dstates * states / (g * r)[:, None], np.tile(one_third, (ROWS, 1)), rtol=CLOSED_FORM)
    np.testing.assert_allclose(
        dscores / (g * r)[:, None], one_third - a / a.sum(-1, keepdims=True), rtol=CLOSED_FORM, atol=CLOSED_FORM
    )
    np.testing.assert_array_equal(dp, 0)


@implementations
@exponents
def test_n9_equal_states_and_equal_logits(p, implementation):
    states = np.full((ROWS, N), 1.375, np.float32)
    r, dstates, dscores, dp, g = run(states, np.full_like(states, -0.75), p, implementation)
    np.testing.assert_array_equal(r, states[:, 0])
    np.testing.assert_allclose(dstates, np.broadcast_to(g[:, None] / N, states.shape), rtol=CLOSED_FORM)
    np.testing.assert_array_equal(dscores, 0)
    np.testing.assert_array_equal(dp, 0)


def geometric_mean(states, scores):
    """Closed form at p = 0 with the next term in p: log r = m + p a + p^2 b."""
    u, z = np.log(np.float64(states)), np.float64(scores)
    centred = lambda x: x - x.mean(-1, keepdims=True)  # noqa: E731
    y = u + z
    second = (centred(y) ** 2).mean(-1) - (centred(z) ** 2).mean(-1)
    third = (centred(y) ** 3).mean(-1) - (centred(z) ** 3).mean(-1)
    size = (centred(u) ** 2).mean(-1) / 2 + np.abs(centred(u) * centred(z)).mean(-1)
    return u.mean(-1), second / 2, third / 6, size


@implementations
@pytest.mark.parametrize("equal_logits", [False, True])
def test_n9_zero_exponent(equal_logits, implementation):
    states, scores = rows(6)
    scores = np.full_like(scores, 0.3) if equal_logits else scores
    r, dstates, dscores, dp, g = run(states, scores, 0.0, implementation)
    mean, slope, _, size = geometric_mean(states, scores)
    np.testing.assert_allclose(r, np.exp(mean), rtol=CONTINUITY)
    np.testing.assert_allclose(dstates, (g * np.exp(mean))[:, None] / (N * np.float64(states)), rtol=CONTINUITY)
    np.testing.assert_array_equal(dscores, 0)
    np.testing.assert_array_less(np.abs(dp / (g * np.exp(mean)) - slope), CONTINUITY * (np.abs(slope) + size))


@implementations
@pytest.mark.parametrize("p", [s * x for x in (1e-38, 1e-12, 1e-6) for s in (1, -1)])
def test_n5_continuity_at_zero(p, implementation):
    """Beyond the exact change, value and dp move by 16 roundings at most; dp's are of the sum of its terms' sizes."""
    states, scores = rows(7)
    mean, slope, curve, size = geometric_mean(states, scores)
    p = np.float64(np.float32(p))
    r0, _, _, dp0, g = run(states, scores, 0.0, implementation)
    r, _, _, dp, _ = run(states, scores, p, implementation)
    exact_change = np.expm1(p * slope + p * p * curve)
    np.testing.assert_array_less(np.abs(r / np.float64(r0) - 1 - exact_change), CONTINUITY)
    change = np.exp(mean + p * slope) * (slope + 2 * p * curve) - np.exp(mean) * slope
    moved = (np.float64(dp) - dp0) / g - change
    np.testing.assert_array_less(np.abs(moved), CONTINUITY * np.exp(mean) * (np.abs(slope) + size))


@pytest.mark.sampled(2)
@implementations
@pytest.mark.parametrize("sign", [1, -1])
def test_n5_no_jump_at_the_branch(sign, implementation):
    """S = -1/2 is at p log(r / h_ref) = -log 2: scan p through it finely; the error must not jump."""
    states, scores = rows(8, spread=0.5)
    grid = np.float32(sign * np.geomspace(0.05, 20, 4000))
    f32 = jitted(implementation=implementation)
    wide = jnp.broadcast_to(jnp.asarray(states)[..., None], (*states.shape, grid.size))
    mask, g = jnp.ones(states.shape, bool), jnp.ones((ROWS, grid.size))
    r = np.asarray(f32(wide, jnp.asarray(scores), jnp.asarray(grid), mask, g)[0], np.float64)
    p, u, z = np.float64(grid), np.log(np.float64(states))[..., None], np.float64(scores)[..., None]
    log_sum = lambda x: np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1)  # noqa: E731
    log_r = (log_sum(p * (u + z)) - log_sum(p * z)) / p
    reference = u.max(1) if sign > 0 else u.min(1)
    crossing = np.diff(np.sign(p * (log_r - reference) + np.log(2)), axis=1)
    assert (crossing != 0).any(axis=1).all(), "every row must cross the branch"
    jump = np.abs(np.diff(np.log(r) - log_r, axis=1))
    np.testing.assert_array_less(jump, BRANCH_JUMP * (np.abs(log_r - reference)[:, 1:] + 1))
