"""The contract of analyses: what is asked of a trained model, and what is found."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable


class Findings(NamedTuple):
    """What an analysis has found."""

    table: list[dict[str, Any]]
    """What is printed: rows with the same columns, texts and numbers."""
    summary: dict[str, Any]
    """Facts about the whole: how many examples were used and how many were left out."""
    examples: list[dict[str, Any]]
    """What the table was computed from, example by example, as values that JSON can hold."""
    figure: Any = None
    """A picture of it, a figure of matplotlib, where there is one."""


@runtime_checkable
class Analysis(Protocol):
    """A question to a trained model, which it answers without training it.

    One that brings its own texts has the class variable `reads_examples = False`, and is given no examples; one whose
    examples are ratings has `reads_ratings = True`.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any): ...

    def __call__(self, trained: Any, examples: Iterable[Any]) -> Findings:
        """Return the findings on a finished run (`experiments.run.trained.Trained`) and examples with their targets.

        Examples are taken as they are needed, so that whoever gives them can show progress.
        """
        ...
