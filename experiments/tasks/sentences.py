"""Short sentences: opinion (mr, sst1, sst2, cr, mpqa), subjectivity (subj) and kinds of question (trec)."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated

import tyro

from experiments.base.options import REPEAT, Interval
from experiments.data import sentences
from experiments.data.fetch import locate
from experiments.data.text import Example
from experiments.data.text_task import SentenceOptions, TextTask


@dataclasses.dataclass(frozen=True)
class FoldOptions(SentenceOptions):
    """Sets without an official split."""

    fold: Annotated[int, Interval("[0, 9]"), REPEAT, tyro.conf.arg(aliases=["--fold"])] = 0
    """Which tenth is the test split, for cross-validation by ten runs."""
    grouped: bool = True
    """Keep equal texts in one tenth; published folds do not, and 22 % of mpqa repeats a text."""


@dataclasses.dataclass(frozen=True)
class TreeOptions(SentenceOptions):
    """Sets whose sentences were cut into graded phrases."""

    phrases: bool = False
    """Train on the phrases of the training sentences too, as Kim (2014) does; from the archive of the trees."""


class _Sentences(TextTask):
    name: str

    @classmethod
    def examples(cls, options: SentenceOptions) -> Iterable[Example]:
        """Return the sentences of the set."""
        if isinstance(options, TreeOptions) and options.phrases:
            return sentences.phrases(locate(sentences.TREES, options.archives, options.cache), cls.name)
        path = locate(sentences.ARCHIVE, options.archives, options.cache)
        folds = options if isinstance(options, FoldOptions) else FoldOptions()
        return sentences.read(path, cls.name, folds.fold, grouped=folds.grouped)


def sentence_task(name: str) -> type[TextTask]:
    """Return the task of one set."""
    options = dict.fromkeys(sentences.BY_CLASS, FoldOptions) | dict.fromkeys(sentences.TREEBANK, TreeOptions)
    return type(name, (_Sentences,), {"name": name, "Options": options.get(name, SentenceOptions)})
