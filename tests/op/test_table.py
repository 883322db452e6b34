"""N1, N2, N3: the op against the exact table, in every layout, on its way forward and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.op import table
from tests.op.running import REVERSE, float64
from tests.op.tolerances import (
    EXTREME_FAMILIES,
    FLOAT64_SCALED_ERROR,
    FLOAT64_VALUE,
    LOW_PRECISION_ULPS,
    SCALED_ERROR,
    unit,
    value_bound,
)

BOUNDED = {"log": 1.0}  # the promise under which the single-pass form may run
RUNS = [(group, None) for group in table.GROUPS if group != "low"] + list(BOUNDED.items())


def offenders(errors, measure, mark) -> list[str]:
    """One line for each (family, output, exponent) over its mark; nan counts as over."""
    lines = []
    for e in errors:
        measured, limit = measure(e), mark(e)
        bad = ~(measured <= limit)
        flat = lambda x, shape=bad.shape: np.broadcast_to(x, shape).reshape(-1, *shape[-1:])  # noqa: E731
        measured, limit, bad = flat(measured), flat(limit), flat(bad)
        for i in np.flatnonzero(bad.any(0)):
            at = e.exponents[i] if e.exponents.size == bad.shape[-1] else "summed"
            worst = np.argmax(np.where(bad[:, i], np.nan_to_num(measured[:, i], nan=np.inf) / limit[:, i], -1.0))
            lines.append(f"{e.family} {e.output} p={at}: {measured[worst, i]:.3g} > {limit[worst, i]:.3g}")
    return lines


def value_units(e):
    """Relative error of the value in roundings, less what flushing to zero and log states excuse."""
    excess = np.maximum(np.abs(e.got - e.want) - table.TINY - e.excused, 0.0)
    return excess / np.where(e.want == 0, table.TINY, e.unit * np.abs(e.want))


def not_finite(e):
    return (e.relevant & ~np.isfinite(e.got)).astype(float)


def check(errors, value_measure, value_mark, gradient_mark):
    """0 non-finite; values and gradients within their marks."""
    errors = list(errors)
    values = [e for e in errors if e.output == "r"]
    gradients = [e for e in errors if e.output != "r"]
    bad = offenders(errors, not_finite, lambda e: 0.5)
    assert not bad, "non-finite: " + "; ".join(bad)
    bad = offenders(values, value_measure, value_mark)
    bad += offenders(gradients, table.Errors.scaled, lambda e: gradient_mark[extreme(e)])
    assert not bad, f"{len(bad)} over the mark:\n" + "\n".join(bad)


def extreme(e) -> bool:
    return e.family in EXTREME_FAMILIES


def value_relative(e):
    return value_units(e) * e.unit


@pytest.mark.sampled(13)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize("layout", table.LAYOUTS)
@pytest.mark.parametrize(("group", "log_bound"), RUNS)
def test_n1_float32(group, log_bound, layout, implementation):
    errors = table.LAYOUTS[layout](group, implementation, np.float32, log_bound)
    check(errors, value_units, lambda e: value_bound(e.log_ratio), SCALED_ERROR)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize(("group", "log_bound"), RUNS)
def test_n2_float64(group, log_bound, implementation):
    with float64():
        errors = list(table.run_rows(group, implementation, np.float64, log_bound))
    check(errors, value_relative, lambda e: FLOAT64_VALUE[extreme(e)], FLOAT64_SCALED_ERROR)


def ulps_of(dtype):
    """Error beyond what float32 inside excuses, in ulps of the dtype of the result."""

    def measure(e):
        spacing = np.maximum(2.0 * unit(dtype) * 2.0 ** np.floor(np.log2(np.abs(e.want) + table.TINY)), smallest(dtype))
        inside = SCALED_ERROR[extreme(e)] * e.noise
        fits = np.abs(e.want) <= float(jnp.finfo(dtype).max)
        return np.where(e.relevant & fits, np.maximum(np.abs(e.got - e.want) - inside, 0.0) / spacing, 0.0)

    return measure


def smallest(dtype):
    """The smallest normal number counts as one ulp of zero where it is flushed."""
    return float(jnp.finfo(dtype).smallest_subnormal if dtype == jnp.float16 else jnp.finfo(dtype).tiny)


@pytest.mark.sampled(7)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize("layout", table.LAYOUTS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_n3_low_precision(dtype, layout, implementation):
    errors = list(table.LAYOUTS[layout]("low", implementation, dtype))
    in_dtype = [e for e in errors if e.output != "dp"]
    bad = offenders(errors, not_finite, lambda e: 0.5)
    bad += offenders(in_dtype, ulps_of(dtype), lambda e: LOW_PRECISION_ULPS)
    in_float32 = [e for e in errors if e.output == "dp"]
    bad += offenders(in_float32, table.Errors.scaled, lambda e: SCALED_ERROR[extreme(e)])
    assert not bad, f"{len(bad)} over the mark:\n" + "\n".join(bad)
