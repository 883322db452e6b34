"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004) by `rouge-score`, of titles that are given as words, so of any script."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from experiments.base.errors import UsageError

try:
    from rouge_score import rouge_scorer
except ImportError:
    rouge_scorer = None

NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""The scores, and what `rouge-score` calls them."""


class _Words:
    """A tokenizer of words that are told apart already: the one of `rouge-score` knows only a to z."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def check_installed() -> None:
    """Raise UsageError where `rouge-score` is missing."""
    if rouge_scorer is None:
        raise UsageError('titles need rouge-score: python -m pip install -e ".[titles]"')


def scores(pairs: Iterable[tuple[Sequence[Any], Sequence[Any]]]) -> dict[str, float]:
    """Return the mean F-measures of pairs of a right title and one that is found; a word is what has no space.

    ROUGE-N counts runs of N words that both have, ROUGE-L is of the longest common subsequence.
    """
    found = [each(*pair) for pair in pairs]
    return {name: float(np.mean([one[name] for one in found])) if found else 0.0 for name in NAMES}


def each(right: Sequence[Any], found: Sequence[Any]) -> dict[str, float]:
    """Return the F-measures of one pair."""
    result = _scorer().score(" ".join(map(str, right)), " ".join(map(str, found)))
    return {name: float(result[key].fmeasure) for name, key in NAMES.items()}


@cache
def _scorer() -> Any:
    check_installed()
    return rouge_scorer.RougeScorer([*NAMES.values()], tokenizer=_Words())
