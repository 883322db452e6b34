"""Tasks of ratings: how a user rates an item, told by what the user has otherwise written and others of the item."""

import abc
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.base.errors import DataError
from experiments.data.rating_batches import UNKNOWN_ID, Library, RatingBatch, RatingCodec, RatingOptions
from experiments.data.rating_files import Review
from experiments.data.text import PADDING, Vocabulary, split_sentences
from experiments.data.text_task import SPLITS


class _Split(NamedTuple):
    """The ratings of one split."""

    ids: list[tuple[int, int]]
    targets: Float[np.ndarray, " N"]
    own: Int[np.ndarray, "N S W"]
    """The reviews that came with them; only the control reads them."""


class RatingTask:
    """A task of ratings; see `experiments.base.contracts.Task`. A task file says how `reviews` reads them."""

    Options: ClassVar[type] = RatingOptions
    objective: ClassVar[str] = "rating"

    @classmethod
    @abc.abstractmethod
    def reviews(cls, options: Any) -> Iterable[Review]:
        """Return all reviews with their ratings."""

    @classmethod
    def objective_of(cls, options: Any) -> str:
        """Return the objective that is learned where none is named."""
        return cls.objective

    @classmethod
    def examples(cls, options: RatingOptions) -> Iterator["Rating"]:
        """Yield the ratings of all splits; a row that stands there twice counts once."""
        for review in dict.fromkeys(cls.reviews(options)):
            yield Rating(review, options.split_of(review.user, review.item))

    @classmethod
    def codec_of(cls, options: RatingOptions, stored: dict[str, Any]) -> RatingCodec:
        """Return the codec that a run has stored."""
        tokens = np.full((len(stored["reviews"]), *options.shape), PADDING, np.int32)
        for rows, (_, _, sentences) in zip(tokens, stored["reviews"], strict=True):
            for row, words in zip(rows, sentences, strict=False):
                row[: len(words)] = words
        users, items = ([review[side] for review in stored["reviews"]] for side in (0, 1))
        names = tuple(stored["users"]), tuple(stored["items"])
        library = Library(users, items, tokens)
        return RatingCodec(options, Vocabulary(stored["words"]), names, library, stored["numbers"])

    def __init__(self, options: RatingOptions, examples: Iterable["Rating"] | None = None):
        found: dict[str, list[Review]] = {split: [] for split in SPLITS}
        for review, split in self.examples(options) if examples is None else examples:
            found[split].append(review)
        for split in SPLITS:
            if not found[split]:
                raise DataError(f"the {split} split has no ratings: give the data more rows.")
        self.codec = _fitted(options, found["train"])
        self.splits = {split: self._encoded(reviews) for split, reviews in found.items()}
        self.steps_per_epoch = -(-len(found["train"]) // options.batch_size)
        self.plan: Callable[[int, int], Int[np.ndarray, " N"]] = lru_cache(maxsize=1)(self._plan)

    def _encoded(self, reviews: list[Review]) -> _Split:
        codec = self.codec
        own = np.zeros((0, *codec.options.shape), np.int32)
        if codec.options.leak_own_review:
            own = np.stack([codec.rows_of(split_sentences(review.text)) for review in reviews])
        ids = [codec.ids(review.user, review.item) for review in reviews]
        return _Split(ids, np.array([review.rating for review in reviews], np.float32), own)

    def describe(self) -> dict[str, Any]:
        """Return the sizes, and of every split how many ratings have an unknown user or item or no other review."""
        sizes = self.codec.sizes
        facts: dict[str, Any] = {"vocabulary": sizes["review_words"], "users": sizes["users"], "items": sizes["items"]}
        for name, split in self.splits.items():
            read = [self.codec.library.others(*pair, 1) for pair in split.ids]
            facts[name] = {
                "ratings": len(split.ids),
                "unknown_users": sum(user == UNKNOWN_ID for user, _ in split.ids),
                "unknown_items": sum(item == UNKNOWN_ID for _, item in split.ids),
                "users_without_reviews": sum(not by_user for by_user, _ in read),
                "items_without_reviews": sum(not of_item for _, of_item in read),
                "digest": self._digest(split),
            }
        return facts

    def _digest(self, split: _Split) -> str:
        """Return a fingerprint of the ratings and of the reviews that may be read."""
        content = hashlib.sha256(np.ascontiguousarray(self.codec.library.tokens).tobytes())
        content.update(np.array(split.ids, np.int32).tobytes() + split.targets.tobytes() + split.own.tobytes())
        return content.hexdigest()[:16]

    def train_batch(self, seed: int, step: int) -> RatingBatch:
        """Return the batch of a step."""
        return self._batch("train", self._rows(seed, step))

    def train_rows(self, seed: int, step: int) -> list[int]:
        """Return which ratings of the training split make the batch of a step."""
        return self._rows(seed, step).tolist()

    def batches(self, split: str) -> Iterator[RatingBatch]:
        """Yield every rating of a split once."""
        rows, size = np.arange(len(self.splits[split].ids)), self.codec.options.batch_size
        for start in range(0, len(rows), size):
            yield self._batch(split, rows[start : start + size])

    def _rows(self, seed: int, step: int) -> Int[np.ndarray, " N"]:
        epoch, index = divmod(step, self.steps_per_epoch)
        size = self.codec.options.batch_size
        return self.plan(seed, epoch)[index * size : (index + 1) * size]

    def _plan(self, seed: int, epoch: int) -> Int[np.ndarray, " N"]:
        """Return the order of the training split in an epoch."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        return random.permutation(len(self.splits["train"].ids))

    def _batch(self, split: str, rows: Int[np.ndarray, " N"]) -> RatingBatch:
        ids, targets, own = self.splits[split]
        given = own[rows] if self.codec.options.leak_own_review else None
        return self.codec.batch([ids[row] for row in rows], targets[rows].tolist(), given)


class Rating(NamedTuple):
    """A review with its rating, and the split that the rating belongs to."""

    review: Review
    split: str

    @property
    def target(self) -> float:
        """What is to be found."""
        return self.review.rating


def _fitted(options: RatingOptions, reviews: list[Review]) -> RatingCodec:
    """Return the codec of a training split."""
    latest = sorted(reviews, key=lambda review: (-review.time, review.user, review.item, review.text))
    texts = [split_sentences(review.text) for review in latest]
    vocabulary = Vocabulary.count((sentence for text in texts for sentence in text), options.min_count)
    ratings = np.array([review.rating for review in reviews])
    if ratings.std() == 0:
        raise DataError(f"every rating of the train split is {ratings[0]}: give it different ratings.")
    numbers = {"ratings": len(reviews), "mean": float(ratings.mean()), "scale": float(ratings.std())}
    users = tuple(sorted({review.user for review in reviews}))
    items = tuple(sorted({review.item for review in reviews}))
    empty = Library([], [], np.zeros((0, *options.shape), np.int32))
    codec = RatingCodec(options, vocabulary, (users, items), empty, numbers)
    ids = [codec.ids(review.user, review.item) for review in latest]
    tokens = np.stack([codec.rows_of(text) for text in texts])
    codec.library = Library([user for user, _ in ids], [item for _, item in ids], tokens)
    return codec
