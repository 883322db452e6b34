"""Short sentences: opinion (mr, sst1, sst2, cr, mpqa), subjectivity (subj) and kinds of question (trec)."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated

import tyro

from experiments.classification import SourceOptions, TextClassification
from experiments.data import sentences
from experiments.data.fetch import locate
from experiments.data.text import Example
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class FoldOptions(SourceOptions):
    """Sets without an official split."""

    fold: Annotated[int, Interval("[0, 9]"), tyro.conf.arg(aliases=["--fold"])] = 0
    """Which tenth is the test split, for cross-validation by ten runs."""


class _Sentences(TextClassification):
    name: str

    @classmethod
    def examples(cls, options: SourceOptions) -> Iterable[Example]:
        """Return the sentences of the set."""
        path = locate(sentences.ARCHIVE, options.archives, options.cache)
        return sentences.read(path, cls.name, getattr(options, "fold", 0))


def sentence_task(name: str) -> type[TextClassification]:
    """Return the task of one set."""
    options = FoldOptions if name in sentences.BY_CLASS else SourceOptions
    return type(name, (_Sentences,), {"name": name, "Options": options})
