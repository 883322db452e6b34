"""Signal and noise: a few words that tell the class among many that do not."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np

from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.data.text_task import TextOptions, TextTask

SIGNALS_A_CLASS, DISTRACTORS = 20, 2000


@dataclasses.dataclass(frozen=True)
class NeedleOptions(TextOptions):
    """How much signal, in how much noise."""

    signals: Annotated[int, Interval("[1, 1000]")] = 1
    """Words of a text that tell its class."""
    misleading: Annotated[float, Interval("[0, 1)")] = 0.0
    """Chance that a signal word is one of another class: where it is high, many signals must be averaged."""
    length: Annotated[int, Interval("[1, 10000]")] = 40
    """Words of a text that tell nothing."""
    classes: Annotated[int, Interval("[2, 100]")] = 4
    """Number of classes, all of one size."""
    size: Annotated[int, Interval("[10, 1000000]")] = 5000
    """Number of texts: 80 % train, 10 % validation, 10 % test."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 64
    """Words kept of a text; longer texts are cut and counted."""


class Needles(TextTask):
    """Which class the signal words of a text belong to."""

    Options: ClassVar[type] = NeedleOptions

    @classmethod
    def examples(cls, options: NeedleOptions) -> Iterator[Example]:
        """Yield the texts; the n-th is the same whatever the size."""
        for index in range(options.size):
            random = np.random.Generator(np.random.Philox(key=index))
            label = index // 10 % options.classes
            words = [f"n{word}" for word in random.integers(DISTRACTORS, size=options.length)]
            for word in random.integers(SIGNALS_A_CLASS, size=options.signals):
                words.insert(random.integers(len(words) + 1), f"s{_said(label, options, random)}x{word}")
            split = {8: "validation", 9: "test"}.get(index % 10, "train")
            yield Example(" ".join(words), str(label).zfill(2), split)


def _said(label: int, options: NeedleOptions, random: np.random.Generator) -> int:
    """The class that one signal word speaks for."""
    if options.misleading == 0 or random.random() >= options.misleading:
        return label
    return (label + int(random.integers(1, options.classes))) % options.classes
