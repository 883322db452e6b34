"""What reports compare runs by: the metric by which their objective chooses, and which way it is better."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from experiments.base.errors import DataError, unknown
from experiments.objectives import OBJECTIVES

HALF_A_POINT = 0.005


class Measure(NamedTuple):
    """A metric: its name in run folders, what it is called, and how its values are read."""

    name: str
    label: str
    sign: int
    """1 where larger values are better, -1 where smaller ones are."""
    is_share: bool
    """Whether values are shares of 1, which are shown in percent."""

    @property
    def scale(self) -> int:
        """What values are multiplied by where they are shown in percent."""
        return 100 if self.is_share else 1

    @property
    def margin(self) -> float | None:
        """The largest difference that does not matter; None where no such margin is agreed on."""
        return HALF_A_POINT if self.is_share else None

    @property
    def digits(self) -> int:
        """Digits after the point, of a value times `scale`."""
        return 1 if self.is_share else 3

    @property
    def ahead(self) -> tuple[str, str]:
        """On which side a better value lies, and on which a worse one."""
        return ("above", "below") if self.sign > 0 else ("below", "above")

    @property
    def extreme(self) -> str:
        """What the best of several values is."""
        return "highest" if self.sign > 0 else "lowest"

    @property
    def title(self) -> str:
        """The label at the beginning of a sentence."""
        return self.label[0].upper() + self.label[1:]

    @property
    def average(self) -> str:
        """What the mean of values is called."""
        return self.label if self.label.startswith("mean ") else f"mean {self.label}"

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"test {self.label} (%)" if self.is_share else f"test {self.label}"

    def gain(self, values: Any) -> float:
        """Return the mean of the values, larger where better; of no values what is worse than any."""
        return self.sign * float(np.mean(values)) if len(values) else -np.inf


def shown(objective: str) -> dict[str, str]:
    """Return the metrics that an objective shows, and what they are called."""
    if objective not in OBJECTIVES:
        raise DataError(str(unknown("objective", objective, OBJECTIVES)))
    return OBJECTIVES[objective].shown


def measure_of(objective: str) -> Measure:
    """Return the metric by which an objective chooses."""
    labels, kind = shown(objective), OBJECTIVES[objective]
    name, better = kind.chosen_by
    return Measure(name, labels.get(name, name), 1 if better == "max" else -1, name in kind.shares)


def in_order(objectives: Iterable[str]) -> list[str]:
    """Return the objectives, each once, in the order of their table."""
    given = set(objectives)
    return [name for name in OBJECTIVES if name in given]
