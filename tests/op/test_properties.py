"""N6: properties of the op on rows that hypothesis draws. N7: what must not leak, and what must."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.op.running import REVERSE, jitted, jitted_rows, random_cotangent
from tests.op.tolerances import BOUND, LENGTH, MINIMUM_ULPS, PERMUTATION, SCORE_SUM, U32, euler_bound

ROWS, TOKENS, EXAMPLES = 32, 12, 45
PROPERTIES = 8  # tests below that draw rows
assert ROWS * EXAMPLES * PROPERTIES >= 10_000

floats = lambda low, high: st.floats(low, high, width=32, allow_subnormal=False)  # noqa: E731


def rows_of(shape, elements, background):
    """Random numbers, with values at places that hypothesis chooses: it could not draw and shrink so many itself."""
    chosen = hnp.arrays(np.float32, shape, elements=elements, fill=st.just(np.nan))
    seed = st.integers(0, 2**16)

    def fill(x, s):
        return np.where(np.isnan(x), background(np.random.default_rng(s), shape), x).astype(np.float32)

    return st.builds(fill, chosen, seed)


STATES = st.one_of(st.just(0.0), floats(2.0**-10, 1.0), floats(1.0, 2.0**10))
states_of = rows_of((ROWS, TOKENS), STATES, lambda rng, shape: np.exp(rng.normal(size=shape)))
scores_of = rows_of((ROWS, TOKENS), floats(-8.0, 8.0), lambda rng, shape: rng.normal(size=shape))
p_of = rows_of(ROWS, floats(0.015625, 100.0), lambda rng, shape: np.exp(rng.uniform(-4, 4.6, shape)))
p_above_one = rows_of(ROWS, floats(1.0, 100.0), lambda rng, shape: np.exp(rng.uniform(0, 4.6, shape)))
implementations = pytest.mark.parametrize("implementation", REVERSE)
PHASES = (Phase.explicit, Phase.generate)  # a failing row is its own report: no minutes of shrinking
rows_drawn = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=PHASES)
FULL = np.ones((ROWS, TOKENS), bool)


def run(implementation, states, scores, p, mask=FULL, cotangent=None):
    """(r, dstates, dscores, dp) of each row, float32 on the host."""
    g = jnp.ones(len(states)) if cotangent is None else cotangent
    arguments = (jnp.asarray(states), jnp.asarray(scores), jnp.asarray(p), jnp.asarray(mask), g)
    return tuple(map(np.asarray, jitted_rows(implementation=implementation)(*arguments)))


def same_bits(got, want):
    np.testing.assert_array_equal(got, want)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of)
def test_scaling_by_a_power_of_two_is_exact(implementation, states, scores, p):
    r, dstates, dscores, _ = run(implementation, states, scores, p)
    big_r, big_dstates, big_dscores, _ = run(implementation, states * np.float32(2**20), scores, p)
    same_bits(big_r, r * np.float32(2**20))
    same_bits(big_dstates, dstates)
    underflow = 2**20 * np.finfo(np.float32).tiny  # flushed before the scaling
    np.testing.assert_allclose(big_dscores, dscores * np.float32(2**20), rtol=4 * U32, atol=underflow)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of, padding=st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 3e38]))
def test_n7_padding_changes_no_bit(implementation, states, scores, p, padding):
    """Extra positions, whatever they hold, masked out."""
    extend = lambda x, value: np.concatenate([x, np.full((ROWS, 5), value, x.dtype)], 1)  # noqa: E731
    g = random_cotangent(ROWS)
    plain = run(implementation, extend(states, 1), extend(scores, 0), p, extend(FULL, False), g)
    dirty = run(implementation, extend(states, padding), extend(scores, -padding), p, extend(FULL, False), g)
    for got, want in zip(dirty, plain, strict=True):
        same_bits(got, want)
    same_bits(plain[1][:, TOKENS:], 0)
    same_bits(plain[2][:, TOKENS:], 0)
    # Another length is another program, which may sum in another order.
    shorter = run(implementation, states, scores, p)[0]
    np.testing.assert_allclose(plain[0], shorter, rtol=LENGTH, atol=1e-30)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of)
def test_batch_split_and_repeat_change_no_bit(implementation, states, scores, p):
    whole = run(implementation, states, scores, p)
    for got, want in zip(run(implementation, states, scores, p), whole, strict=True):
        same_bits(got, want)
    half = ROWS // 2
    first = run(implementation, states[:half], scores[:half], p[:half], FULL[:half])
    second = run(implementation, states[half:], scores[half:], p[half:], FULL[half:])
    for a, b, want in zip(first, second, whole, strict=True):
        same_bits(np.concatenate([a, b]), want)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of)
def test_mean_lies_between_minimum_and_maximum(implementation, states, scores, p):
    r = run(implementation, states, scores, p)[0]
    assert (r <= states.max(1)).all()
    lowest = states.min(1)
    assert (r >= lowest - MINIMUM_ULPS * np.spacing(lowest)).all()


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of, seed=st.integers(0, 99))
def test_order_of_tokens_does_not_matter(implementation, states, scores, p, seed):
    order = np.random.default_rng(seed).permutation(TOKENS)
    r, dstates, _, _ = run(implementation, states, scores, p)
    moved_r, moved_dstates, _, _ = run(implementation, states[:, order], scores[:, order], p)
    np.testing.assert_allclose(moved_r, r, rtol=PERMUTATION, atol=1e-30)
    np.testing.assert_allclose(moved_dstates, dstates[:, order], rtol=100 * PERMUTATION, atol=PERMUTATION)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_of)
def test_euler_and_score_sums(implementation, states, scores, p):
    """r is homogeneous of degree 1 in h, and does not move when all scores move together."""
    r, dstates, dscores, _ = map(np.float64, run(implementation, states, scores, p))
    r_floor = r + 1e-30
    np.testing.assert_array_less(np.abs((states * dstates).sum(1) - r) / r_floor, euler_bound(p))
    np.testing.assert_array_less(np.abs(dscores.sum(1)) / r_floor, SCORE_SUM)


@implementations
@rows_drawn
@given(states=states_of, scores=scores_of, p=p_above_one)
def test_bounds_for_p_above_one(implementation, states, scores, p):
    r, dstates, dscores, dp = map(np.float64, run(implementation, states, scores, p))
    assert (dstates >= 0).all()
    assert (dstates <= 1 + BOUND).all()
    assert (np.abs(dscores) <= r[:, None] * (1 + BOUND)).all()
    assert (np.abs(dp) <= r * np.log(TOKENS) / np.float64(p) ** 2 * (1 + BOUND)).all()


@implementations
@rows_drawn
@given(states=states_of, p=p_of, level=floats(-4.0, 4.0))
def test_monotone_in_p_for_equal_logits(implementation, states, p, level):
    dp = run(implementation, states, np.full_like(states, level), p)[3]
    assert (dp >= 0).all()


@implementations
@pytest.mark.parametrize("bad", [np.nan, -1.0, -np.inf, -1e-30])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, -2.0, 50.0, np.inf])
def test_n7_bad_state_spoils_its_own_output_only(p, bad, implementation):
    rng = np.random.default_rng(3)
    states = np.float32(np.abs(rng.standard_normal((3, 7, 5))) + 0.1)
    scores, g = np.float32(rng.standard_normal((3, 7))), random_cotangent((3, 5))
    g = g.at[1, 2].set(0)  # its gradients must be NaN through the value, and the others clean
    spoiled = states.copy()
    spoiled[1, 4, 2] = bad
    mask = jnp.ones((3, 7), bool)
    f = jitted(implementation=implementation)
    clean, dirty = (tuple(map(np.asarray, f(s, scores, np.float32(p), mask, g))) for s in (states, spoiled))
    hit = np.zeros((3, 5), bool)
    hit[1, 2] = True
    assert np.isnan(dirty[0][1, 2]), "the value"
    same_bits(dirty[0][~hit], clean[0][~hit])
    elsewhere = np.broadcast_to(~hit[:, None], states.shape)
    same_bits(dirty[1][elsewhere], clean[1][elsewhere])
    same_bits(dirty[2][[0, 2]], clean[2][[0, 2]])


@implementations
def test_n7_nan_score_spoils_its_own_row_only(implementation):
    rng = np.random.default_rng(4)
    states, scores = np.float32(rng.uniform(0.1, 2, (3, 7, 5))), np.float32(rng.standard_normal((3, 7)))
    spoiled = scores.copy()
    spoiled[1, 4] = np.nan
    mask, g, f = jnp.ones((3, 7), bool), random_cotangent((3, 5)), jitted(implementation=implementation)
    clean, dirty = (tuple(map(np.asarray, f(states, z, np.float32(2), mask, g))) for z in (scores, spoiled))
    assert np.isnan(dirty[0][1]).all()
    for got, want in zip(dirty[:3], clean[:3], strict=True):
        same_bits(got[[0, 2]], want[[0, 2]])
