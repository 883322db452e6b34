"""What the texts of a data set carry: one class each, any number of tags, a number, or a group of paraphrases."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Int

from experiments.base.errors import DataError


class Targets(Protocol):
    """The targets of a data set: fitted to its splits, or rebuilt from what a run has stored."""

    key: ClassVar[str]
    """The name under which a run stores them."""
    sizes: dict[str, int | float]

    @classmethod
    def fit(cls, splits: dict[str, list[Any]]) -> "Targets":
        """Return the targets of a data set, or raise DataError where nothing can be learned from them."""
        ...

    def __init__(self, stored: Any): ...

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        """Return the targets of texts as an array."""
        ...

    def to_json(self) -> Any:
        """Return what a run stores."""
        ...


class Classes:
    """One class a text: Int [N]."""

    key: ClassVar[str] = "labels"

    @classmethod
    def fit(cls, splits: dict[str, list[str]]) -> "Classes":
        """Return the classes that occur, sorted."""
        names = sorted(set().union(*splits.values()))
        if len(names) < 2:
            raise DataError(f"every text has the class {names[0]!r}: give texts of at least two classes.")
        return cls(names)

    def __init__(self, stored: Iterable[str]):
        self.names = tuple(stored)
        self.sizes: dict[str, int | float] = {"classes": len(self.names)}
        self._index = {name: index for index, name in enumerate(self.names)}

    def encode(self, values: Sequence[str]) -> Int[np.ndarray, " N"]:
        """Return the number of every class."""
        return np.array([self._index[value] for value in values], np.int32)

    def to_json(self) -> list[str]:
        """Return the names."""
        return [*self.names]


class Tags:
    """Any number of tags a text: Float [N C], 1 where a text has the tag."""

    key: ClassVar[str] = "tags"

    @classmethod
    def fit(cls, splits: dict[str, list[Sequence[str]]]) -> "Tags":
        """Return the tags of the training split, sorted; a tag that it lacks cannot be learned and is dropped."""
        names = sorted({tag for tags in splits["train"] for tag in tags})
        if not names:
            raise DataError("no text of the training split has a tag: give texts with tags.")
        return cls(names)

    def __init__(self, stored: Iterable[str]):
        self.names = tuple(stored)
        self.sizes: dict[str, int | float] = {"tags": len(self.names)}
        self._index = {name: index for index, name in enumerate(self.names)}

    def encode(self, values: Sequence[Sequence[str]]) -> Float[np.ndarray, "N C"]:
        """Return a row of zeros and ones a text."""
        encoded = np.zeros((len(values), len(self.names)), np.float32)
        for row, tags in zip(encoded, values, strict=True):
            row[[self._index[tag] for tag in tags if tag in self._index]] = 1
        return encoded

    def to_json(self) -> list[str]:
        """Return the names."""
        return [*self.names]


class Numbers:
    """A number a text: Float [N]. Their mean and standard deviation in the training split are sizes of the model."""

    key: ClassVar[str] = "numbers"

    @classmethod
    def fit(cls, splits: dict[str, list[float]]) -> "Numbers":
        """Return the numbers' mean and standard deviation in the training split."""
        for split, values in splits.items():
            if not np.isfinite(values).all():
                raise DataError(f"the {split} split holds a number that is not finite: remove it.")
        scale = float(np.std(splits["train"]))
        if scale == 0:
            raise DataError(f"every text has the number {splits['train'][0]}: give texts with different numbers.")
        return cls({"mean": float(np.mean(splits["train"])), "scale": scale})

    def __init__(self, stored: dict[str, float]):
        self._stored = {"mean": float(stored["mean"]), "scale": float(stored["scale"])}
        self.sizes: dict[str, int | float] = {"numbers": 1, **self._stored}

    def encode(self, values: Sequence[float]) -> Float[np.ndarray, " N"]:
        """Return the numbers."""
        return np.array(values, np.float32)

    def to_json(self) -> dict[str, float]:
        """Return mean and standard deviation."""
        return self._stored


class Groups:
    """A group of texts that say the same, one a text: Int [N]. The groups of the training split are what is trained.

    Groups of other splits have numbers beyond these; a split is ranked by itself, so they are numbered in each.
    """

    key: ClassVar[str] = "groups"

    @classmethod
    def fit(cls, splits: dict[str, list[str]]) -> "Groups":
        """Return the groups of the training split, sorted; every group has several texts, in one split."""
        for split, values in splits.items():
            alone = sorted(name for name, count in Counter(values).items() if count < 2)
            if alone:
                found = f"{len(alone)} groups of one text, as {alone[0]!r}"
                raise DataError(f"the {split} split has {found}: expected two texts or more of every group.")
        names = sorted(set(splits["train"]))
        if len(names) < 2:
            raise DataError(f"every text of the train split is of the group {names[0]!r}: give it two groups or more.")
        both = set(names) & set().union(*(values for split, values in splits.items() if split != "train"))
        if both:
            raise DataError(f"the group {min(both)!r} is in the train split and in another: give it one split.")
        return cls(names)

    def __init__(self, stored: Iterable[str]):
        self._stored = tuple(stored)
        self.sizes: dict[str, int | float] = {"groups": len(self._stored)}
        self._index = {name: index for index, name in enumerate(self._stored)}

    def encode(self, values: Sequence[str]) -> Int[np.ndarray, " N"]:
        """Return the number of every group; groups that are not trained come after those that are."""
        others = sorted(set(values) - self._index.keys())
        index = self._index | {name: len(self._stored) + place for place, name in enumerate(others)}
        return np.array([index[value] for value in values], np.int32)

    def to_json(self) -> list[str]:
        """Return the names of the trained groups."""
        return [*self._stored]
