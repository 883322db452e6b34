"""The Large Movie Review Dataset (Maas et al. 2011): 50,000 reviews, scores 1-4 and 7-10, test films of their own."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from experiments.base.errors import DataError
from experiments.base.options import Interval
from experiments.data.archives import members
from experiments.data.fetch import Archive, locate
from experiments.data.targets import Numbers
from experiments.data.text import SENTENCE_END, WORD, Example, held_out
from experiments.data.text_task import LongOptions, SourceOptions, TextTask

ARCHIVE = Archive(
    "aclImdb_v1.tar.gz",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
_REVIEW = re.compile(r"(train|test)/(neg|pos)/(\d{1,9})_(\d{1,2})\.txt$")
_FILMS = re.compile(r"train/urls_(neg|pos)\.txt$")
_CONTRACTION = re.compile(r"(?<=\w)(?=(?:n't|'(?:s|m|d|re|ve|ll))\b)", re.IGNORECASE)


def read(path: Path, *, scores: bool) -> Iterator[Example]:
    """Yield every labelled review; the class is neg or pos, or one of eight scores.

    All training reviews of one film are in one split.
    """
    reviews: list[tuple[re.Match[str], str]] = []
    films: dict[str, list[str]] = {}
    for name, content in members(path, lambda name: _REVIEW.search(name) or _FILMS.search(name)):
        text = content.decode("utf-8", errors="replace")
        if found := _REVIEW.search(name):
            reviews.append((found, text.replace("<br />", " ")))
        elif found := _FILMS.search(name):
            films[found[1]] = text.splitlines()
    if len(films) < 2:
        raise DataError(f"{path.name} has no train/urls_neg.txt and urls_pos.txt: is it the archive of {ARCHIVE.url}?")
    for found, text in reviews:
        split, side, number, score = found.groups()
        label = score.zfill(2) if scores else side
        if split == "train" and int(number) >= len(films[side]):
            lines = f"train/urls_{side}.txt has {len(films[side])} lines"
            raise DataError(f"{path.name}: {lines}, expected one for the review {found[0]}.")
        yield Example(text, label, held_out(films[side][int(number)]) if split == "train" else split)


class Imdb(TextTask):
    """Whether a review is favourable."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with two classes."""
        return read(locate(ARCHIVE, options.archives, options.cache), scores=False)


class Imdb8(Imdb):
    """The score that a review gives."""

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with eight classes."""
        return read(locate(ARCHIVE, options.archives, options.cache), scores=True)


class ImdbScore(Imdb8):
    """The score that a review gives, as a number: 1 to 4 and 7 to 10."""

    Targets: ClassVar[type] = Numbers
    objective: ClassVar[str] = "regress"

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the reviews with a number each."""
        return (example._replace(target=float(example.target)) for example in super().examples(options))


@dataclasses.dataclass(frozen=True)
class ReviewSentenceOptions(SourceOptions):
    """Sentences of reviews, to learn a language from."""

    every: Annotated[int, Interval("[1, 1000]")] = 1
    """One of so many reviews is read, in every split."""


class ImdbSentences(TextTask):
    """The sentences of the reviews, each with the class of its review.

    Contractions are two words, as in the Penn Treebank: "it's" is "it 's", "can't" is "ca n't". So the words are those
    of the trees that a language model is compared with.
    """

    Options: ClassVar[type] = ReviewSentenceOptions
    objective: ClassVar[str] = "language_model"

    @classmethod
    def examples(cls, options: ReviewSentenceOptions) -> Iterator[Example]:
        """Yield the sentences that have words."""
        reviews = read(locate(ARCHIVE, options.archives, options.cache), scores=False)
        for number, review in enumerate(reviews):
            if number % options.every == 0:
                for sentence in SENTENCE_END.split(review.text):
                    if WORD.search(sentence):
                        yield review._replace(text=_CONTRACTION.sub(" ", sentence.strip()))
