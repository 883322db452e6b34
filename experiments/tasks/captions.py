"""Flickr8k (Hodosh, Young and Hockenmaier 2013): photographs with five captions each, which say the same.

The published lists say which photographs are for training, validation and test; photographs on no list are left out.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.options import Interval
from experiments.data.archives import member
from experiments.data.fetch import Archive, locate
from experiments.data.targets import Groups
from experiments.data.text import Example
from experiments.data.text_task import SourceOptions, TextTask

ARCHIVE = Archive(
    "Flickr8k_text.zip", "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip"
)
CAPTIONS = "Flickr8k.token.txt"
LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "validation": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_LINE = re.compile(r"([^#\t]+)#\d+\t(.+)")


def read(path: Path) -> Iterator[Example]:
    """Yield the captions of the photographs on the lists, with the name of the photograph as their group."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path, CAPTIONS), start=1):
        found = _LINE.fullmatch(line)
        if not found:
            expected = "the name of a photograph, #, a number, a tab and a caption"
            raise DataError(f"{path.name}, {CAPTIONS}, line {number}: found {line!r}, expected {expected}.")
        captions.setdefault(found[1], []).append(found[2].strip())
    for split, name in LISTS.items():
        for number, photograph in enumerate(_lines(path, name), start=1):
            if photograph not in captions:
                raise DataError(f"{path.name}, {name}, line {number}: {CAPTIONS} has no caption of {photograph!r}.")
            yield from (Example(caption, photograph, split) for caption in captions[photograph])


def _lines(path: Path, name: str) -> list[str]:
    """Return the lines of a file of the archive that are not empty."""
    content = files.text(member(path, name), f"{path.name}, {name}")
    return [line.strip() for line in content.splitlines() if line.strip()]


@dataclasses.dataclass(frozen=True)
class CaptionOptions(SourceOptions):
    """Captions of photographs."""

    suggests: ClassVar[dict[str, Any]] = {"evaluations": 1}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 256
    """Batch size, in texts."""


class Flickr8k(TextTask):
    """Which captions are of the same photograph."""

    Options: ClassVar[type] = CaptionOptions
    Targets: ClassVar[type] = Groups
    objective: ClassVar[str] = "similarity"

    @classmethod
    def examples(cls, options: CaptionOptions) -> Iterable[Example]:
        """Return the captions."""
        return read(locate(ARCHIVE, options.archives, options.cache))
