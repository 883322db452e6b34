"""Means over runs with intervals, and tests against attention pooling that know how many there are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments.reporting.records import Key, Row

LEVEL = 0.95
REFERENCE = "attention"


class Estimate(NamedTuple):
    """A mean over runs, and half the width of its 95 % interval; None where one run says nothing about spread."""

    mean: float
    half: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with Student's interval, mean ± t(n - 1) s / sqrt(n)."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(mean, None, n)
    return Estimate(mean, float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)), n)


class Comparison(NamedTuple):
    """A pooler against attention pooling over the seeds and folds that both have."""

    difference: Estimate
    p_value: float | None
    """Student's paired test, two-sided; None where the differences do not vary, so that there is no such test."""
    corrected: float | None = None
    """The same after Holm's correction for all comparisons of the report."""


def paired(values: Mapping[Any, float], reference: Mapping[Any, float]) -> Comparison | None:
    """Compare run by run; None when no seed and fold is shared."""
    shared = sorted(values.keys() & reference.keys())
    if not shared:
        return None
    differences = np.array([values[run] - reference[run] for run in shared])
    difference = estimate(differences.tolist())
    if len(shared) < 2 or np.ptp(differences) < 1e-12:
        return Comparison(difference, None)
    return Comparison(difference, float(stats.ttest_1samp(differences, 0).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, after Holm (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return corrected.tolist()


def comparisons(rows: Sequence[Row]) -> dict[Key, Comparison]:
    """Compare every row with attention pooling at the same place; one family for Holm."""
    references = {row.key.place: row for row in rows if row.key.pooler == REFERENCE and not row.key.pool}
    found = {}
    for row in rows:
        reference = references.get(row.key.place)
        if reference is not None and reference is not row:
            comparison = paired(row.scores(), reference.scores())
            if comparison is not None:
                found[row.key] = comparison
    tested = [key for key, comparison in found.items() if comparison.p_value is not None]
    corrected = holm([found[key].p_value or 0.0 for key in tested])
    return found | {key: found[key]._replace(corrected=value) for key, value in zip(tested, corrected, strict=True)}


class Overall(NamedTuple):
    """A pooler against attention pooling over the places of one objective where both ran."""

    method: str
    differences: tuple[float, ...]
    p_value: float | None
    """Wilcoxon's signed-rank test over the places, two-sided."""
    corrected: float | None = None


def overall(found: Mapping[Key, Comparison]) -> list[Overall]:
    """Return one line a pooler, the best mean difference first; Holm over the poolers. One objective has all keys."""
    sign = {key.measure.sign for key in found}.pop() if found else 1
    groups: dict[str, list[float]] = {}
    for key, comparison in found.items():
        groups.setdefault(key.method, []).append(comparison.difference.mean)
    lines = []
    for method, differences in groups.items():
        testable = len(differences) > 1 and any(differences)
        p_value = float(stats.wilcoxon(differences).pvalue) if testable else None
        lines.append(Overall(method, tuple(differences), p_value))
    tested = [line for line in lines if line.p_value is not None]
    corrected = dict(zip([line.method for line in tested], holm([line.p_value or 0.0 for line in tested]), strict=True))
    lines.sort(key=lambda line: (-sign * float(np.mean(line.differences)), line.method))
    return [line._replace(corrected=corrected.get(line.method)) for line in lines]
