"""News of 1987 with any number of topics (reuters)."""

from collections.abc import Iterable
from typing import ClassVar

from experiments.data import reuters
from experiments.data.fetch import locate
from experiments.data.targets import Tags
from experiments.data.text import Example
from experiments.data.text_task import LongOptions, TextTask


class Reuters(TextTask):
    """The topics of a piece of news: the ModApte split of Reuters-21578, none to 16 topics an article."""

    Options: ClassVar[type] = LongOptions
    Targets: ClassVar[type] = Tags
    objective: ClassVar[str] = "multilabel"

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the news."""
        folder = options.archives
        source = reuters.REPACKED if folder and (folder / reuters.REPACKED.name).is_file() else reuters.ARCHIVE
        return reuters.read(locate(source, folder, options.cache))
