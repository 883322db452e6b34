"""Batches of ratings with reviews: those that the user has otherwise written, and those that others wrote of the item.

A review is read only beside others: the review that came with the rating that is asked for is never among them, nor is
any other review of the same user and item, in training as little as in validation and test.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import tyro
from jaxtyping import Bool, Float, Int

from experiments.base.options import REPEAT, Interval
from experiments.data.corpus import SentenceShape
from experiments.data.rating_files import ITEM_NAMES, USER_NAMES
from experiments.data.text import PADDING, Vocabulary, held_out, tenth

UNKNOWN_ID = 0
"""The number of every user or item that has no rating in the training split."""


@dataclasses.dataclass(frozen=True)
class RatingOptions:
    """How ratings and reviews become batches: batch_size * 2 * most_reviews * most_sentences * longest words each."""

    suggests: ClassVar[Mapping[str, Any]] = {"epochs": 6}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 64
    """Batch size, in ratings."""
    most_reviews: Annotated[int, Interval("[1, 1024]")] = 6
    """Reviews that are read of a user, and as many of an item: the latest ones."""
    most_sentences: Annotated[int, Interval("[1, 1024]")] = 5
    """Sentences that are read of a review, the first ones; the title is one of them."""
    longest: Annotated[int, Interval("[1, 1024]")] = 16
    """A sentence of more words is cut into several of this many."""
    shortest: Annotated[int, Interval("[1, 1024]")] = 4
    """A sentence of fewer words is read together with the next one."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 3
    """Words seen less often in the reviews of the training split are replaced by the unknown word."""
    leak_own_review: bool = False
    """Control, no honest result: both sides read the review that came with the rating in question, and no other."""
    fold: Annotated[int, Interval("[0, 9]"), REPEAT, tyro.conf.arg(aliases=["--fold"])] = 0
    """Which tenth of the ratings is the test split; a tenth of the others is for validation."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a review: its sentences and their words."""
        return self.most_sentences, self.longest

    def split_of(self, user: str, item: str) -> str:
        """Return the split of a rating, by the hash of user and item."""
        key = f"{user} {item}"
        return "test" if tenth(key) == self.fold else held_out(key)


class RatingBatch(NamedTuple):
    """Ratings with the other reviews of the user and those of the item, as host arrays."""

    users: Int[np.ndarray, "B"]
    """Number of the user, 0 where the training split has none of that name."""
    items: Int[np.ndarray, "B"]
    user_tokens: Int[np.ndarray, "B R S W"]
    """Words of the sentences of the reviews by the user."""
    user_mask: Bool[np.ndarray, "B R S W"]
    item_tokens: Int[np.ndarray, "B R S W"]
    """Words of the sentences of the reviews of the item."""
    item_mask: Bool[np.ndarray, "B R S W"]
    targets: Float[np.ndarray, "B"]
    """The rating."""
    weights: Float[np.ndarray, "B"]
    """1 at a rating, 0 at the empty rows that fill the last batch."""


class Library:
    """Reviews of the training split, words by number, and which of them are of a user or an item, the latest first."""

    def __init__(self, users: Sequence[int], items: Sequence[int], tokens: Int[np.ndarray, "N S W"]):
        self.users, self.items = np.asarray(users, np.int32), np.asarray(items, np.int32)
        self.tokens = tokens
        self._of_user: dict[int, list[int]] = defaultdict(list)
        self._of_item: dict[int, list[int]] = defaultdict(list)
        for place, (user, item) in enumerate(zip(self.users.tolist(), self.items.tolist(), strict=True)):
            self._of_user[user].append(place)
            self._of_item[item].append(place)

    def others(self, user: int, item: int, most: int) -> tuple[list[int], list[int]]:
        """Return the reviews of a user about other items, and those of an item by other users, `most` of each."""
        by_user = (place for place in self._of_user.get(user, ()) if self.items[place] != item)
        of_item = (place for place in self._of_item.get(item, ()) if self.users[place] != user)
        return [*islice(by_user, most)], [*islice(of_item, most)]

    def read_by_some(self, most: int) -> list[int]:
        """Return the reviews that some rating can ask for, where `most` of a user and of an item are read."""
        found = set()
        for lists, others in ((self._of_user, self.items), (self._of_item, self.users)):
            for places in lists.values():
                # A rating leaves out the reviews of its own pair, and reads the first of the others.
                of_one_pair = Counter(others[places].tolist()).most_common(1)[0][1]
                found.update(places[: most + of_one_pair])
        return sorted(found)


class RatingCodec:
    """Pairs of a user and an item to batches: the words, the names, and the reviews that are read of each.

    The reviews are part of it, so that a trained model needs no data set.
    """

    fields: ClassVar[Mapping[str, tuple[str, ...]] | None] = {"user": USER_NAMES, "item": ITEM_NAMES}
    """The columns of a record, each with the names that it may have."""

    def __init__(
        self,
        options: RatingOptions,
        vocabulary: Vocabulary,
        names: tuple[Sequence[str], Sequence[str]],
        library: Library,
        numbers: Mapping[str, float],
    ):
        self.options, self.vocabulary, self.library = options, vocabulary, library
        self.users, self.items = names
        self._user, self._item = ({name: n for n, name in enumerate(side, start=1)} for side in names)
        self._numbers = dict(numbers)
        sizes = {"review_words": len(vocabulary), "users": len(self.users) + 1, "items": len(self.items) + 1}
        self.sizes: dict[str, int | float] = {**sizes, **self._numbers}

    def ids(self, user: str, item: str) -> tuple[int, int]:
        """Return the numbers of a user and an item."""
        return self._user.get(user, UNKNOWN_ID), self._item.get(item, UNKNOWN_ID)

    def rows_of(self, text: list[list[str]]) -> Int[np.ndarray, "S W"]:
        """Return the words of a review by number, a row a sentence; what is beyond the last row is left out."""
        rows = np.full(self.options.shape, PADDING, np.int32)
        shape = SentenceShape(min(self.options.shortest, self.options.longest), self.options.longest)
        words = self.vocabulary.encode([word for sentence in text for word in sentence])
        sentence, place = shape.places([*map(len, text)], max(len(words), self.options.longest))
        kept = sentence < len(rows)
        rows[sentence[kept], place[kept]] = np.array(words, np.int32)[kept]
        return rows

    def batch(
        self,
        ids: Sequence[tuple[int, int]],
        targets: Sequence[float],
        own: Int[np.ndarray, "N S W"] | None = None,
    ) -> RatingBatch:
        """Return ratings as one batch, filled up to the batch size; `own` are the reviews that came with them."""
        options = self.options
        tokens = np.full((2, options.batch_size, options.most_reviews, *options.shape), PADDING, np.int32)
        for row, (user, item) in enumerate(ids):
            for side, places in enumerate(self.library.others(user, item, options.most_reviews)):
                if options.leak_own_review:
                    tokens[side, row, 0] = PADDING if own is None else own[row]
                else:
                    tokens[side, row, : len(places)] = self.library.tokens[places]
        missing = options.batch_size - len(ids)
        users, items = np.pad(np.array(ids, np.int32).reshape(-1, 2), ((0, missing), (0, 0))).T
        numbers = np.pad(np.array(targets, np.float32), (0, missing))
        weights = (np.arange(options.batch_size) < len(ids)).astype(np.float32)
        mask = tokens != PADDING
        return RatingBatch(users, items, tokens[0], mask[0], tokens[1], mask[1], numbers, weights)

    def encode(self, records: Iterable[tuple[str, str]]) -> Iterator[RatingBatch]:
        """Yield pairs of a user and an item, in their order, as batches."""
        pairs = iter(records)
        while some := list(islice(pairs, self.options.batch_size)):
            yield self.batch([self.ids(*pair) for pair in some], [0.0] * len(some))

    def named(self, record: dict[str, Any], pair: Any) -> dict[str, Any]:
        """Return a record of what is predicted of a pair, as it is."""
        return record

    def to_json(self) -> dict[str, Any]:
        """Return words, names, numbers, and the reviews that can be read: user, item and the words of each sentence."""
        library = self.library
        reviews = [
            [int(library.users[place]), int(library.items[place]), _without_padding(library.tokens[place])]
            for place in library.read_by_some(self.options.most_reviews)
        ]
        return {
            "words": [*self.vocabulary.words],
            "users": [*self.users],
            "items": [*self.items],
            "numbers": self._numbers,
            "reviews": [] if self.options.leak_own_review else reviews,
        }


def _without_padding(rows: Int[np.ndarray, "S W"]) -> list[list[int]]:
    return [row[row != PADDING].tolist() for row in rows if (row != PADDING).any()]
