"""The root of the chain of trust: hand arithmetic, then the reference against the exact table in float64."""

from math import exp, log, sqrt

import jax.numpy as jnp
import numpy as np
import pytest

import lnpool
from tests.op import table
from tests.op.running import ALL, float64
from tests.op.tolerances import CLOSED_FORM

STATES = jnp.array([[1.0], [3.0], [2.0]])
SCORES = jnp.array([log(1.0), log(2.0), log(5.0)])  # attention 1/8, 2/8, 5/8

HAND = {
    "attention pooling": (1.0, {}, (1 * 1 + 2 * 3 + 5 * 2) / 8),
    "p = 2": (2.0, {}, sqrt((1 * 1**2 + 4 * 3**2 + 25 * 2**2) / (1 + 4 + 25))),
    "p = 3": (3.0, {}, ((1 * 1**3 + 8 * 3**3 + 125 * 2**3) / (1 + 8 + 125)) ** (1 / 3)),
    "p = 1/2": (0.5, {}, ((1 + sqrt(2) * sqrt(3) + sqrt(5) * sqrt(2)) / (1 + sqrt(2) + sqrt(5))) ** 2),
    "p = -1": (-1.0, {}, (1 / 1 + 1 / 2 + 1 / 5) / (1 / (1 * 1) + 1 / (2 * 3) + 1 / (5 * 2))),
    "p = 0": (0.0, {}, (1 * 3 * 2) ** (1 / 3)),
    "p = inf": (np.inf, {}, max(1 * 1, 2 * 3, 5 * 2) / 5),
    "p = -inf": (-np.inf, {}, min(1 * 1, 2 * 3, 5 * 2) / 1),
    "masked": (2.0, {"mask": jnp.array([True, True, False])}, sqrt((1 * 1**2 + 4 * 3**2) / (1 + 4))),
    "fully masked": (2.0, {"mask": jnp.zeros(3, bool)}, 0.0),
    "attention kept out of the power": (2.0, {"sharpen": False}, sqrt((1 * 1**2 + 2 * 3**2 + 5 * 2**2) / 8)),
    "the same at p = -1": (-1.0, {"sharpen": False}, 8 / (1 / 1 + 2 / 3 + 5 / 2)),
    "the same at p = 0": (0.0, {"sharpen": False}, 1 ** (1 / 8) * 3 ** (2 / 8) * 2 ** (5 / 8)),
}


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("name", HAND)
def test_by_hand(name, implementation):
    p, options, expected = HAND[name]
    got = lnpool.pool(STATES, SCORES, p, implementation=implementation, **options)
    np.testing.assert_allclose(got, [expected], rtol=CLOSED_FORM)


@pytest.mark.parametrize("implementation", ALL)
def test_by_hand_other_inputs(implementation):
    """No scores; two heads; one exponent a feature; log states."""
    pool = lambda *a, **k: np.asarray(lnpool.pool(*a, implementation=implementation, **k))  # noqa: E731
    np.testing.assert_allclose(pool(STATES), [sqrt((1 + 9 + 4) / 3)], rtol=CLOSED_FORM)
    pair = jnp.concatenate([STATES, 2 * STATES], 1)
    heads = jnp.stack([SCORES, jnp.zeros(3)], 1)
    one, other = (1 * 1 + 2 * 3 + 5 * 2) / 8, 2 * sqrt((1 + 9 + 4) / 3)
    np.testing.assert_allclose(pool(pair, heads, jnp.array([1.0, 2.0])), [one, other], rtol=CLOSED_FORM)
    np.testing.assert_allclose(
        pool(pair, SCORES, jnp.array([1.0, 2.0])), [one, 2 * sqrt((1 + 36 + 100) / 30)], rtol=CLOSED_FORM
    )
    logs = jnp.array([[0.0], [1.0], [-1.0]])
    expected = (1 * exp(0) + 2 * exp(1) + 5 * exp(-1)) / 8
    np.testing.assert_allclose(pool(logs, SCORES, 1.0, log_states=True), [expected], rtol=CLOSED_FORM)
    bounded = pool(logs, SCORES, 1.0, log_states=True, log_bound=1.0)
    np.testing.assert_allclose(bounded, [expected], rtol=CLOSED_FORM)


@pytest.mark.parametrize("group", ["linear", "long", "fixed", "log", "free_log"])
def test_reference_against_the_table(group):
    """Wherever the definition itself is well conditioned in float64: 0.01 <= |p| <= 100, and the limits."""
    with float64():
        errors = list(table.run_rows(group, "reference", np.float64))
    for e in errors:
        size = np.abs(e.exponents)
        chosen = np.flatnonzero((size == 0) | ((size >= 0.01) & (size <= 100)) | (np.isinf(size) & (e.output == "r")))
        got, want, noise = (x[..., chosen] for x in (e.got, e.want, e.noise))
        rtol = 1e-9
        keep = e.relevant[..., chosen] & ~at_a_zero(group, e)[..., chosen]
        np.testing.assert_array_equal(np.isfinite(got[keep]), True, err_msg=f"{e.family} {e.output}")
        bound = rtol * np.abs(want) + noise * 2.0**20
        over = keep & (np.abs(got - want) > bound)
        assert not over.any(), f"{e.family} {e.output} at p={e.exponents[chosen[np.nonzero(over)[-1]]]}"


def at_a_zero(group, e):
    """dstates at h = 0, which the oracle, going through log h, leaves at 0."""
    loaded = table.load(group)
    f = list(loaded["families"]).index(e.family)
    if e.output != "dstates" or loaded["log_states"]:
        return np.zeros(e.got.shape, bool)
    return np.broadcast_to((np.abs(loaded["states"][f]) < table.TINY)[..., None], e.got.shape)
