"""Long documents: film reviews (imdb, imdb8, imdb_score) and postings by newsgroup (newsgroups20)."""

from collections.abc import Iterable
from typing import ClassVar

from experiments.data import imdb, newsgroups
from experiments.data.fetch import locate
from experiments.data.targets import Numbers
from experiments.data.text import Example
from experiments.data.text_task import LongOptions, TextTask


class Imdb(TextTask):
    """Whether a review is favourable."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with two classes."""
        return imdb.read(locate(imdb.ARCHIVE, options.archives, options.cache), scores=False)


class Imdb8(Imdb):
    """The score that a review gives."""

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with eight classes."""
        return imdb.read(locate(imdb.ARCHIVE, options.archives, options.cache), scores=True)


class ImdbScore(Imdb8):
    """The score that a review gives, as a number: 1 to 4 and 7 to 10."""

    Targets: ClassVar[type] = Numbers
    objective: ClassVar[str] = "regress"

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with a number each."""
        return (example._replace(target=float(example.target)) for example in super().examples(options))


class Newsgroups(TextTask):
    """The group that a posting was sent to."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the postings."""
        return newsgroups.read(locate(newsgroups.ARCHIVE, options.archives, options.cache))
