"""Signal and noise: the best fixed exponent of a sweep beside the learned one, for every number of signal words."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.reporting.formats import Cell, Table
from experiments.reporting.measures import Measure
from experiments.reporting.records import Row, Run
from experiments.reporting.statistics import Estimate, estimate

CLOSE = 0.25


class Line(NamedTuple):
    """One number of signal words."""

    signals: int
    best: float
    """The fixed exponent with the best mean score on validation."""
    lowest: float
    """The fixed exponent with the lowest validation loss: the lowest of a run, mean over runs; less noisy."""
    best_score: Estimate
    learned: Estimate
    """The learned exponent of the tested parameters."""
    learned_score: Estimate
    fitted: float
    """The fixed exponent with the lowest mean training loss at the end of training: what the gradient strives for."""
    final: Estimate
    """The learned exponent at the end of training."""

    def ratio(self, fixed: float) -> float:
        """Return the learned exponent over a fixed one."""
        return self.learned.mean / fixed

    def is_close(self, fixed: float) -> bool:
        """Whether the learned exponent is within 25 % of a fixed one."""
        return abs(self.ratio(fixed) - 1) <= CLOSE


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
            best = max(fixed, key=lambda row: row.key.measure.gain([run.validated for run in row.finished]))
            lowest = min(fixed, key=lambda row: _mean(row, _lowest_loss))
            fitted = min(fixed, key=lambda row: _mean(row, lambda run: run.validations[-1]["train_loss"]))
            scores = [estimate([run.score for run in row.finished]) for row in (best, learned[0])]
            lines.append(
                Line(
                    signals,
                    _p(best.finished[0]),
                    _p(lowest.finished[0]),
                    scores[0],
                    estimate([_p(run) for run in learned[0].finished]),
                    scores[1],
                    _p(fitted.finished[0]),
                    estimate([float(np.mean(run.validations[-1]["p"])) for run in learned[0].finished]),
                )
            )
    return lines


def _p(run: Run) -> float:
    assert run.p is not None
    return float(run.p.mean())


def _lowest_loss(run: Run) -> float:
    """Of all validations: the tested parameters are those of the best score, and their loss jumps with the epoch."""
    return float(min(record["loss"] for record in run.validations))


def _mean(row: Row, score: Callable[[Run], float]) -> float:
    return float(np.mean([score(run) for run in row.finished]))


def table(lines: Sequence[Line], measure: Measure) -> Table:
    """Return one row a number of signal words."""
    score = measure.label
    ratios = (f"learned / best by {score}", "by loss")
    end = ("best p by training loss at the end", "learned p there")
    header = ("k", f"best p by {score}", f"{score} there", "best p by loss", "learned p", score, *ratios, *end)
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        fixed: tuple[Cell, ...] = (line.best, line.best_score, line.lowest)
        learned: tuple[Cell, ...] = (line.learned, line.learned_score)
        compared = (line.ratio(line.best), line.ratio(line.lowest), line.fitted, line.final)
        rows.append((line.signals, *fixed, *learned, *compared))
    return Table(header, tuple(rows), (0, 2, 4, 2, 2, 4, 2, 2, 2, 2))
