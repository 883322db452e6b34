"""Gated recurrent units in both directions, after Cho et al. (EMNLP 2014)."""

import dataclasses
from typing import Annotated, ClassVar

from experiments.base.options import Interval
from experiments.layers.recurrence import GatedRecurrent, RecurrentOptions


@dataclasses.dataclass(frozen=True)
class BiGRUOptions(RecurrentOptions):
    """Word vectors, then a recurrent layer that reads both ways."""

    features: Annotated[int, Interval("[1, 2048]")] = 64
    """Size of the state of one direction; a token's state holds both."""


class BiGRU(GatedRecurrent):
    """One state a token, from all words before it and all words after it."""

    Options: ClassVar[type] = BiGRUOptions
    directions = 2
