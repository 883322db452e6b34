"""Whether the words that weigh most are those whose loss changes the output (Jain and Wallace, NAACL 2019)."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, ClassVar

from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.run.importance import agreement, measured, without_each_word
from experiments.run.trained import Trained

LEAVE_ONE_OUT = "leave_one_out"


@dataclasses.dataclass(frozen=True)
class LeaveOneOutOptions:
    """Kendall's tau of what words weigh, and of the gradient, with the change of the output without each word."""

    shortest: Annotated[int, Interval("[2, 65536]")] = 2
    """Texts of fewer words are left out; the paper keeps sentences of 6 words and more."""


class LeaveOneOut:
    """Each word deleted and the text encoded again: tau of weights and gradient with the total variation distance."""

    Options: ClassVar[type] = LeaveOneOutOptions

    def __init__(self, options: LeaveOneOutOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return tau of every weight, and of the gradient, with leave-one-out."""
        texts = []
        for some in measured(trained, examples, self.options.shortest):
            changes = without_each_word(trained, some)
            texts += [
                (text, text.measures | {LEAVE_ONE_OUT: change}) for text, change in zip(some, changes, strict=True)
            ]
        return agreement(texts, LEAVE_ONE_OUT)
