"""Signal and noise: the best fixed exponent of a sweep beside the learned one, for every number of signal words."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.reporting.records import Row
from experiments.reporting.statistics import Estimate, estimate
from experiments.reporting.tables import Cell, Table

CLOSE = 0.25


class Line(NamedTuple):
    """One number of signal words."""

    signals: int
    best: float
    """The fixed exponent with the highest mean validation accuracy."""
    best_accuracy: Estimate
    learned: Estimate
    learned_accuracy: Estimate

    @property
    def is_close(self) -> bool:
        """Whether the learned exponent is within 25 % of the best fixed one."""
        return abs(self.learned.mean / self.best - 1) <= CLOSE


def best_and_learned(rows: Sequence[Row]) -> list[Line]:
    """Return a line for every number of signal words for which there are fixed exponents and a learned one."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.finished and row.key.task == "needles" and row.key.pooler == "learned_norm":
            groups[row.finished[0].config.data.signals].append(row)  # type: ignore[union-attr]
    lines = []
    for signals, group in sorted(groups.items()):
        fixed = [row for row in group if not row.finished[0].trains_p]
        learned = [row for row in group if row.finished[0].trains_p]
        if len(fixed) > 1 and len(learned) == 1:
            best = max(fixed, key=_validation)
            exponents = estimate([float(run.p.mean()) for run in learned[0].finished if run.p is not None])
            accuracies = (estimate([run.accuracy for run in row.finished]) for row in (best, learned[0]))
            best_accuracy, learned_accuracy = accuracies
            p = best.finished[0].p
            assert p is not None
            lines.append(Line(signals, float(p.mean()), best_accuracy, exponents, learned_accuracy))
    return lines


def _validation(row: Row) -> float:
    return float(np.mean([run.facts["validation"]["accuracy"] for run in row.finished]))


def table(lines: Sequence[Line]) -> Table:
    """Return one row a number of signal words."""
    header = ("k", "best fixed p", "accuracy there", "learned p", "accuracy", "learned / best", "within 25 %")
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        ratio, close = line.learned.mean / line.best, "yes" if line.is_close else "no"
        rows.append((line.signals, line.best, line.best_accuracy, line.learned, line.learned_accuracy, ratio, close))
    return Table(header, tuple(rows), (0, 2, 4, 2, 4, 2, 0))
