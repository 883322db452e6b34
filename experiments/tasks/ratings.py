"""Ratings of items by users, each with a review: the 5-core sets of Amazon, the user's own file, and a planted rule."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro

from experiments.base.options import NOT_DECISIVE, Interval
from experiments.data.fetch import Archive, locate
from experiments.data.rating_batches import RatingOptions
from experiments.data.rating_files import Review, read
from experiments.data.rating_task import RatingTask

HOST = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
REPACKED = {"Musical_Instruments": "Musical_instruments_reviews.csv.zip"}
"""Archives of other names with the reviews of a category, which are read where the folder has them."""


@dataclasses.dataclass(frozen=True)
class AmazonOptions(RatingOptions):
    """Reviews of Amazon, or a file in the same form."""

    category: str = "Musical_Instruments"
    """Category of the 5-core sets of 2014, as the name of its file says it: reviews_Musical_Instruments_5.json.gz."""
    path: Annotated[Path | None, tyro.conf.arg(aliases=["--path"])] = None
    """A file of reviews, in place of a category: JSON lines or CSV, packed or not."""
    archives: Annotated[Path | None, NOT_DECISIVE, tyro.conf.arg(aliases=["--archives"])] = None
    """Folder with upstream's archives; nothing is fetched when given."""
    cache: Annotated[Path, NOT_DECISIVE] = Path("~/.cache/lnpool")
    """Folder that fetched archives are kept in."""

    @property
    def file(self) -> Path:
        """The file of the reviews, fetched where it is not at hand."""
        if self.path is not None:
            return self.path
        name = f"reviews_{self.category}_5.json.gz"
        repacked = REPACKED.get(self.category)
        if self.archives and repacked and not (self.archives / name).exists() and (self.archives / repacked).exists():
            return self.archives / repacked
        return locate(Archive(name, f"{HOST}/{name}"), self.archives, self.cache)


class AmazonRatings(RatingTask):
    """How many stars a user gives an item."""

    Options: ClassVar[type] = AmazonOptions

    @classmethod
    def reviews(cls, options: AmazonOptions) -> Iterator[Review]:
        """Yield the reviews of the file."""
        return read(options.file)


ASPECTS, LEVELS, SYNONYMS, FILLERS = 4, (-1.0, -0.5, 0.0, 0.5, 1.0), 3, 50


@dataclasses.dataclass(frozen=True)
class PlantedOptions(RatingOptions):
    """A rule whose ratings follow from words in the other reviews."""

    number_of_users: Annotated[int, Interval("[4, 100000]")] = 400
    """Number of users."""
    number_of_items: Annotated[int, Interval("[4, 100000]")] = 200
    """Number of items."""
    per_user: Annotated[int, Interval("[1, 1000]")] = 10
    """Number of ratings of a user."""


class PlantedRatings(RatingTask):
    """The rating is 3 + 2 q, with q from -1 to 1 the quality of the item in the one aspect that the user cares about.

    A review says in words which aspect its user cares about, and in words the quality of its item in every aspect, each
    in a sentence between words that say nothing. So the rating is a function of words in the other reviews of the user
    and of the item.
    """

    Options: ClassVar[type] = PlantedOptions

    @classmethod
    def reviews(cls, options: PlantedOptions) -> Iterator[Review]:
        """Yield the reviews; those of the n-th user are the same whatever the number of users."""
        random = np.random.Generator(np.random.Philox(key=[0, 0]))
        qualities = random.integers(len(LEVELS), size=(options.number_of_items, ASPECTS))
        for user in range(options.number_of_users):
            random = np.random.Generator(np.random.Philox(key=[1, user]))
            cares = int(random.integers(ASPECTS))
            rated = min(options.per_user, options.number_of_items)
            for item in random.choice(options.number_of_items, rated, replace=False):
                said = [
                    f"care{cares}",
                    *(f"aspect{aspect}level{level}" for aspect, level in enumerate(qualities[item])),
                ]
                text = ". ".join(_sentence(word, random) for word in random.permutation(said))
                yield Review(f"u{user}", f"i{item}", 3 + 2 * LEVELS[qualities[item, cares]], text, 0.0)


def _sentence(word: str, random: np.random.Generator) -> str:
    """Return one of the synonyms of a word between words that say nothing."""
    words = [f"n{filler}" for filler in random.integers(FILLERS, size=4)]
    words.insert(int(random.integers(len(words) + 1)), f"{word}x{random.integers(SYNONYMS)}")
    return " ".join(words)
