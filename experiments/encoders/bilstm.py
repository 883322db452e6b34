"""Long short-term memory in both directions, after Graves and Schmidhuber (2005)."""

import dataclasses
from typing import Annotated, ClassVar

from experiments.base.options import Interval
from experiments.layers.recurrence import LongShortTerm, RecurrentOptions


@dataclasses.dataclass(frozen=True)
class BiLSTMOptions(RecurrentOptions):
    """Word vectors, then a recurrent layer that reads both ways."""

    features: Annotated[int, Interval("[1, 2048]")] = 64
    """Size of the state of one direction; a token's state holds both."""


class BiLSTM(LongShortTerm):
    """One state a token, from all words before it and all words after it."""

    Options: ClassVar[type] = BiLSTMOptions
    directions = 2
