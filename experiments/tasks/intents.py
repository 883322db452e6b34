"""CLINC150 (Larson et al., EMNLP 2019): 150 kinds of question to an assistant; what is out of scope is left out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from experiments.base.errors import DataError
from experiments.base.json_files import object_of
from experiments.data.archives import member
from experiments.data.fetch import Archive, locate
from experiments.data.text import Example
from experiments.data.text_task import SentenceOptions, TextTask

ARCHIVE = Archive("clinc150.zip", "https://archive.ics.uci.edu/static/public/570/clinc150.zip")
FILE = "data_full.json"
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def read(path: Path) -> Iterator[Example]:
    """Yield the questions with their intents."""
    where = f"{path.name}, {FILE}"
    content = object_of(member(path, FILE), where)
    for split, name in SPLITS.items():
        rows = content.get(name)
        if not isinstance(rows, list):
            raise DataError(f"{where}: found {', '.join(content)}, expected a list {name}.")
        for number, row in enumerate(rows, start=1):
            match row:
                case [str(text), str(intent)]:
                    yield Example(text, intent, split)
                case _:
                    raise DataError(f"{where}, {name}, row {number}: found {row!r}, expected [text, intent].")


class Clinc150(TextTask):
    """What a question asks an assistant for."""

    Options: ClassVar[type] = SentenceOptions

    @classmethod
    def examples(cls, options: SentenceOptions) -> Iterable[Example]:
        """Return the questions."""
        return read(locate(ARCHIVE, options.archives, options.cache))
