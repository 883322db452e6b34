"""Whether the words that weigh most are those at which the output is steepest (Jain and Wallace, NAACL 2019)."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, ClassVar

from experiments.base.errors import UsageError
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.run.importance import GRADIENT, agreement, measured
from experiments.run.trained import Trained


@dataclasses.dataclass(frozen=True)
class GradientOptions:
    """Kendall's tau between what words weigh and the gradient, with the attention detached."""

    shortest: Annotated[int, Interval("[2, 65536]")] = 2
    """Texts of fewer words are left out; the paper keeps sentences of 6 words and more."""


class Gradient:
    """Kendall's tau of attention, effective weight and contribution with |x_i . dy/dx_i|."""

    Options: ClassVar[type] = GradientOptions

    def __init__(self, options: GradientOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return tau of every weight with the gradient."""
        texts = [(text, text.measures) for some in measured(trained, examples, self.options.shortest) for text in some]
        if texts and texts[0][1].keys() == {GRADIENT}:
            raise UsageError(f"the pooling {trained.config.pooler} gives words no weights: choose leave_one_out.")
        return agreement(texts, GRADIENT)
