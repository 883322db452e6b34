"""The user's own texts: `--task file --path reviews.csv`."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from experiments.base.options import DECIDES_OBJECTIVE, NOT_DECISIVE, Interval, added
from experiments.data import text_files
from experiments.data.targets import Classes, Numbers, Tags, Targets
from experiments.data.text import Example
from experiments.data.text_task import TextOptions, TextTask


@dataclasses.dataclass(frozen=True)
class FileOptions(TextOptions):
    """A CSV, TSV or JSON-lines file of texts and classes, tags or numbers."""

    path: Annotated[Path | None, tyro.conf.arg(aliases=["--path"])] = None
    """The file."""
    text: str = ""
    """Column of the texts; found by its name when not given."""
    label: str = ""
    """Column of the classes, tags or numbers; found by its name when not given."""
    targets: Annotated[Literal["class", "tags", "number"], added("class"), DECIDES_OBJECTIVE] = "class"
    """What that column holds: a class, any number of tags with | between them, or a number."""
    split: str = ""
    """Column that says train, validation or test; without one, the hash of each text decides (80, 10, 10 %)."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with a row without label or text or with too few or many columns; at most 0.1 % are skipped."""
    max_megabytes: Annotated[int, Interval("[1, 1048576]"), NOT_DECISIVE] = 1024
    """Megabytes of the largest file that is read; it is held in memory, about four times."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 200
    """Words kept of a text; longer texts are cut and counted."""


def _table(options: FileOptions) -> text_files.Table:
    return text_files.read(
        options.path,
        text=options.text,
        label=options.label,
        split=options.split,
        targets=options.targets,
        skip=options.bad_rows == "skip",
        megabytes=options.max_megabytes,
    )


_KINDS: dict[str, tuple[type[Targets], str]] = {
    "class": (Classes, "classify"),
    "tags": (Tags, "multilabel"),
    "number": (Numbers, "regress"),
}


class File(TextTask):
    """What the user's file says of a text: a class, tags or a number."""

    Options: ClassVar[type] = FileOptions

    @classmethod
    def objective_of(cls, options: FileOptions) -> str:
        """Return what is learned from such a column."""
        return _KINDS[options.targets][1]

    @classmethod
    def targets_of(cls, options: FileOptions) -> type[Targets]:
        """Return what the column holds."""
        return _KINDS[options.targets][0]

    def __init__(self, options: FileOptions):
        rows, self.facts = _table(options)
        super().__init__(options, rows)

    @classmethod
    def examples(cls, options: FileOptions) -> Iterable[Example]:
        """Return the rows of the file."""
        return _table(options).examples

    def describe(self) -> dict[str, Any]:
        """Return the sizes, and the counts of skipped rows and replaced characters."""
        return super().describe() | self.facts
