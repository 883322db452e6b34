"""The table program itself: closed forms against mpmath.diff, estimates against perturbed inputs, reproduction."""

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from tests.op import make_table
from tests.op.make_table import GROUPS, OUTPUTS, build, compare, exact, read, solve
from tests.op.table_inputs import Inputs

U = [mpf(x) for x in ("-1.2", "0.3", "0.9", "-0.1", "2.0")]
Z = [mpf(x) for x in ("0.4", "-1.1", "0.2", "1.7", "-0.6")]


def log_pool(u, z, p, sharpen):
    """The definition, term by term: log of (sum (a h)^p / sum a^p)^(1/p), or of (sum a h^p)^(1/p)."""
    total = mp.fsum(mp.exp(x) for x in z)
    a = [mp.exp(x) / total for x in z]
    b = [x**p for x in a] if sharpen else a
    return mp.log(mp.fsum(y * mp.exp(x) ** p for y, x in zip(b, u, strict=True)) / mp.fsum(b)) / p


def replaced(values, i, x):
    return [*values[:i], x, *values[i + 1 :]]


@pytest.mark.parametrize("sharpen", [True, False])
@pytest.mark.parametrize("p", ["-3", "-0.5", "1e-3", "0.7", "1", "2.5", "40"])
def test_derivatives_match_numerical_differentiation(p, sharpen):
    with mp.workdps(60):
        p = mpf(p)
        e = exact(U, Z, p, sharpen)
        assert mpmath.almosteq(e.value, log_pool(U, Z, p, sharpen), 1e-40)
        assert mpmath.almosteq(e.slope, mpmath.diff(lambda x: log_pool(U, Z, x, sharpen), p), 1e-15, 1e-20)
        assert mpmath.almosteq(e.slope_p, mpmath.diff(lambda x: exact(U, Z, x, sharpen).slope, p), 1e-15, 1e-20)
        for i in range(len(U)):
            by_u = mpmath.diff(lambda x, i=i: log_pool(replaced(U, i, x), Z, p, sharpen), U[i])
            by_z = mpmath.diff(lambda x, i=i: log_pool(U, replaced(Z, i, x), p, sharpen), Z[i])
            assert mpmath.almosteq(e.w[i], by_u, 1e-15, 1e-20)
            assert mpmath.almosteq(e.b[i], by_z, 1e-15, 1e-20)


@pytest.mark.parametrize("sharpen", [True, False])
def test_zero_exponent_is_the_geometric_mean(sharpen):
    """1.2 and 1.9 of the contract: p = 0 in closed form."""
    with mp.workdps(make_table.DIGITS):
        e = exact(U, Z, 0.0, sharpen)
    u, z = np.array(U, float), np.array(Z, float)
    v = np.full(5, 0.2) if sharpen else np.exp(z) / np.exp(z).sum()
    mean = v @ u
    slope = v @ (u - mean) ** 2 / 2 + (np.mean((u - mean) * (z - z.mean())) if sharpen else 0.0)
    np.testing.assert_allclose(float(e.value), mean, rtol=1e-14)
    np.testing.assert_allclose(float(e.slope), slope, rtol=1e-13)
    np.testing.assert_allclose(np.array(e.b, float), 0.0 if sharpen else v * (u - mean), rtol=1e-13)
    np.testing.assert_allclose(np.array(e.w, float), v, rtol=1e-14)


@pytest.mark.parametrize("sharpen", [True, False])
@pytest.mark.parametrize("p", [-2.0, 1e-3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("log_states", [False, True])
def test_inherent_error_is_what_perturbed_inputs_do(p, sharpen, log_states):
    rng = np.random.default_rng(0)
    states = np.float32(rng.uniform(0.2, 2.0, 4))
    row = Inputs(states, np.float32(rng.normal(size=4)), np.ones(4, bool))
    with mp.workdps(make_table.DIGITS):
        base = solve(row, np.float32(p), sharpen, log_states)
        moved = {k: np.zeros_like(base[k]) for k in OUTPUTS}
        for change in perturbations(row, np.float32(p)):
            other = solve(*change, sharpen, log_states)
            moved = {k: moved[k] + np.abs(other[k] - base[k]) for k in OUTPUTS}
    for k in OUTPUTS:  # a whole ulp up is at most twice the half ulp, to first order
        np.testing.assert_allclose(moved[k] / 2, base[f"inherent_{k}"], rtol=2e-3, err_msg=k)


def perturbations(row, p):
    """The row with each single input, and p, one float32 ulp up."""
    for field in ("states", "scores"):
        for i in range(len(row.mask)):
            values = getattr(row, field).copy()
            values[i] += np.spacing(np.abs(values[i]))
            yield row._replace(**{field: values}), p
    yield row, p + np.spacing(np.abs(p))


@pytest.mark.parametrize("name", GROUPS)
def test_stored_table_is_reproduced(name):
    compare(build(name), read(name))


def test_table_is_small():
    assert make_table.PATH.stat().st_size < 1_000_000
