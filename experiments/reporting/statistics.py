"""Means over runs with intervals, and tests against attention pooling that know how many there are.

Sources: Holm, "A simple sequentially rejective multiple test procedure" (1979); Schuirmann, "A comparison of the two
one-sided tests procedure and the power approach for assessing the equivalence of average bioavailability" (1987).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from experiments.reporting.records import Key, Row

ALPHA = 0.05
"""A p-value below it is a finding; intervals are of 1 - ALPHA."""
POWER = 0.8
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
    return Estimate(mean, float(stats.t.isf(ALPHA / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)), n)


class Comparison(NamedTuple):
    """A pooler against attention pooling over the seeds and folds that both have."""

    difference: Estimate
    p_value: float | None
    """Student's paired test, two-sided; None where the differences do not vary, so that there is no such test."""
    equivalence: float | None = None
    """Two one-sided paired tests, the larger p-value; None where the measure has no margin, or as above."""
    corrected: float | None = None
    """The paired test after Holm's correction for all comparisons of the report."""
    equivalence_corrected: float | None = None
    """The tests of equivalence after theirs."""
    strictest: float = ALPHA
    """The level of the smallest p-value of the report: ALPHA over the number of its paired tests."""

    @property
    def differs(self) -> bool:
        """Whether the difference is shown not to be zero."""
        return self.corrected is not None and self.corrected < ALPHA

    @property
    def is_equivalent(self) -> bool:
        """Whether the difference is shown to lie within the margin of the measure."""
        return self.equivalence_corrected is not None and self.equivalence_corrected < ALPHA


def paired(
    values: Mapping[Any, float], reference: Mapping[Any, float], margin: float | None = None
) -> Comparison | None:
    """Compare run by run, also for equivalence where there is a margin; None when no seed and fold is shared."""
    shared = sorted(values.keys() & reference.keys())
    if not shared:
        return None
    differences = np.array([values[run] - reference[run] for run in shared])
    difference = estimate(differences.tolist())
    if len(shared) < 2 or np.ptp(differences) < 1e-12:
        return Comparison(difference, None)
    within = None if margin is None else equivalence(differences, margin)
    return Comparison(difference, float(stats.ttest_1samp(differences, 0).pvalue), within)


def equivalence(differences: Any, margin: float) -> float:
    """Return the p-value of two one-sided t-tests, the larger one: small when the mean lies within ± margin."""
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


def detectable(difference: Estimate, level: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest true difference that the two-sided paired test finds, with its sign, with this power.

    The true spread of the differences is taken to be the observed one, of at least two runs.
    """
    assert difference.half is not None
    degrees = difference.n - 1
    error = difference.half / stats.t.isf(ALPHA / 2, degrees)
    return float(error * special.nctdtrinc(degrees, 1 - power, stats.t.isf(level / 2, degrees)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number, after Holm (1979); None is no test and stays None.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    given = np.array([value for value in p_values if value is not None])
    order = np.argsort(given, kind="stable")
    corrected = np.empty(len(given))
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1)), 1)
    found = iter(corrected.tolist())
    return [None if value is None else next(found) for value in p_values]


def plain(rows: Sequence[Row], pooler: str) -> dict[tuple[str, ...], Row]:
    """Return the rows of a pooler whose options are all at their defaults, by place."""
    return {row.key.place: row for row in rows if row.key.pooler == pooler and not row.key.pool}


def comparisons(rows: Sequence[Row]) -> dict[Key, Comparison]:
    """Compare every row with attention pooling at the same place.

    For Holm the paired tests are one family, and those of equivalence another.
    """
    references = plain(rows, REFERENCE)
    found: dict[Key, Comparison] = {}
    for row in rows:
        reference = references.get(row.key.place)
        if reference is not None and reference is not row:
            comparison = paired(row.scores(), reference.scores(), row.key.measure.margin)
            if comparison is not None:
                found[row.key] = comparison
    tests = [comparison.p_value for comparison in found.values()]
    strictest = ALPHA / max(1, len(tests) - tests.count(None))
    within = holm([comparison.equivalence for comparison in found.values()])
    return {
        key: comparison._replace(corrected=one, equivalence_corrected=other, strictest=strictest)
        for (key, comparison), one, other in zip(found.items(), holm(tests), within, strict=True)
    }


class Overall(NamedTuple):
    """A pooler against attention pooling over the places of one objective where both ran."""

    method: str
    comparisons: tuple[Comparison, ...]
    p_value: float | None
    """Wilcoxon's signed-rank test over the places, two-sided."""
    corrected: float | None = None

    @property
    def difference(self) -> Estimate:
        """The mean over the places of the mean differences."""
        return estimate([comparison.difference.mean for comparison in self.comparisons])


def overall(found: Mapping[Key, Comparison]) -> list[Overall]:
    """Return one line a pooler, the best mean difference first; Holm over the poolers. One objective has all keys."""
    sign = {key.measure.sign for key in found}.pop() if found else 1
    groups: dict[str, list[Comparison]] = {}
    for key, comparison in found.items():
        groups.setdefault(key.method, []).append(comparison)
    lines = []
    for method, compared in groups.items():
        differences = [comparison.difference.mean for comparison in compared]
        testable = len(differences) > 1 and any(differences)
        p_value = float(stats.wilcoxon(differences).pvalue) if testable else None
        lines.append(Overall(method, tuple(compared), p_value))
    corrected = holm([line.p_value for line in lines])
    lines = [line._replace(corrected=value) for line, value in zip(lines, corrected, strict=True)]
    return sorted(lines, key=lambda line: (-sign * line.difference.mean, line.method))
