"""Texts with titles: the descriptions of Debian's packages, and the user's own table."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from experiments.base.errors import DataError
from experiments.base.options import Interval
from experiments.data.lines import tables, tuples
from experiments.data.text import Example, held_out, split_by_hash
from experiments.data.titles import TitleOptions, TitleTask

DEBIAN = "debian_titles.jsonl.xz"
TEXT = ("text", "body", "article", "content", "document", "description")
TITLE = ("title", "headline", "summary", "synopsis")


def read(path: Path, **fields: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield some columns of a table, packed or not: JSON lines, CSV or TSV.

    Args:
        path: the file.
        fields: what is read, in its order, and for each the names that its column may have.

    Raises:
        DataError: one line with the file, the row and what was expected.
    """
    for name, file in tables(path):
        yield from tuples(file, name, fields, lambda size: None)


class DebianTitles(TitleTask):
    """The synopsis of a Debian package from its description; packages of a source are in one split."""

    @classmethod
    def examples(cls, options: TitleOptions) -> Iterator[Example]:
        """Yield the packages; the split is by the hash of the source."""
        path = options.archives / DEBIAN if options.archives else None
        if path is None or not path.is_file():
            raise DataError(f"{DEBIAN} is not at hand: give the folder that holds it, --archives DIR (docs/tasks.md).")
        for source, title, text in read(path, source=("source",), title=TITLE, text=TEXT):
            yield Example(text, title, split_by_hash(source))


@dataclasses.dataclass(frozen=True)
class TitleFileOptions(TitleOptions):
    """A table of texts and titles, and others for validation and test."""

    path: Annotated[Path | None, tyro.conf.arg(aliases=["--path"])] = None
    """The file: JSON lines, CSV or TSV, packed or not, with columns such as text and title."""
    validation: Path | None = None
    """File of the validation split; without one, a tenth of the training split by the hash of each text."""
    test: Path | None = None
    """File of the test split; without one, the hash of each text decides (80, 10, 10 %)."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 2
    """Words seen less often, in texts and titles of the training split, are replaced by the unknown word."""


class TitleFile(TitleTask):
    """The titles of the user's file."""

    Options: ClassVar[type] = TitleFileOptions

    @classmethod
    def examples(cls, options: TitleFileOptions) -> Iterator[Example]:
        """Yield the rows of the files."""
        if options.path is None:
            raise DataError("no file is given: --task title_file --path titles.jsonl")
        given: dict[str, Any] = {"train": options.path, "validation": options.validation, "test": options.test}
        for name, path in given.items():
            for text, title in read(path, text=TEXT, title=TITLE) if path else ():
                split = name
                if name == "train" and options.test is None:
                    split = split_by_hash(text)
                elif name == "train" and options.validation is None:
                    split = held_out(text)
                yield Example(text, title, split)
