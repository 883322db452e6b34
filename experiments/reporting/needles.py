"""Signal and noise: the best fixed exponent of a sweep beside learned ones, for every number of signal words."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.reporting.formats import Cell, Table
from experiments.reporting.measures import Measure
from experiments.reporting.records import LEARNED_NORMS, Row, Run
from experiments.reporting.statistics import Estimate, estimate

CLOSE = 0.25


class Line(NamedTuple):
    """One number of signal words, one learned norm, and one way to learn its exponent."""

    signals: int
    pooler: str
    way: str
    """What the exponent learns from, and how many times faster than the other parameters."""
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
    """Return a line for every number of signal words and every learned exponent that has fixed ones beside it.

    Fixed and learned exponents that are compared are of the same pooler.
    """
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.finished and row.key.task == "needles" and row.key.pooler in LEARNED_NORMS:
            groups[row.finished[0].config.data.signals, row.key.pooler].append(row)  # type: ignore[union-attr]
    lines = []
    for (signals, pooler), group in sorted(groups.items()):
        fixed = [row for row in group if not row.finished[0].trains_p]
        learned = [row for row in group if row.finished[0].trains_p]
        for row in learned if len(fixed) > 1 else []:
            best = max(fixed, key=lambda one: one.key.measure.gain([run.validated for run in one.finished]))
            lowest = min(fixed, key=lambda one: _mean(one, _lowest_loss))
            fitted = min(fixed, key=lambda one: _mean(one, lambda run: run.validations[-1]["train_loss"]))
            scores = [estimate([run.score for run in one.finished]) for one in (best, row)]
            lines.append(
                Line(
                    signals,
                    pooler,
                    _way(row.finished[0]),
                    _p(best.finished[0]),
                    _p(lowest.finished[0]),
                    scores[0],
                    estimate([_p(run) for run in row.finished]),
                    scores[1],
                    _p(fitted.finished[0]),
                    estimate([float(np.mean(run.validations[-1]["p"])) for run in row.finished]),
                )
            )
    return lines


def _way(run: Run) -> str:
    """How the exponent of a run learns, in words."""
    assert run.config is not None
    share, rate = run.config.optim.held_out, run.config.optim.p_multiplier
    return f"{f'the {share:.0%} held out' if share else 'all texts'}, {rate:g} times"


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
    way = "p learns from, times the rate of the rest"
    ratios = (f"learned / best by {score}", "by loss")
    end = ("best p by training loss at the end", "learned p there")
    header = (
        "k",
        "pooler",
        way,
        f"best p by {score}",
        f"{score} there",
        "best p by loss",
        "learned p",
        score,
        *ratios,
        *end,
    )
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        fixed: tuple[Cell, ...] = (line.best, line.best_score, line.lowest)
        learned: tuple[Cell, ...] = (line.learned, line.learned_score)
        compared = (line.ratio(line.best), line.ratio(line.lowest), line.fitted, line.final)
        rows.append((line.signals, line.pooler, line.way, *fixed, *learned, *compared))
    return Table(header, tuple(rows), (0, 0, 0, 2, 4, 2, 2, 4, 2, 2, 2, 2))
