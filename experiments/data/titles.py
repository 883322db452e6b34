"""Texts with titles: the words of a title are of the same vocabulary as those of the texts, and become numbers.

A title ends with the padding word, and begins after it: what stands before the first word is the padding word too.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Int, Shaped

from experiments.base.errors import DataError, UsageError
from experiments.base.options import Interval
from experiments.data import rouge
from experiments.data.corpus import Corpus
from experiments.data.text import PADDING, UNKNOWN, Example, split_words
from experiments.data.text_task import SourceOptions, TextCodec, TextTask

LONGEST = 12
"""Words of a title that are learned and written at most."""
_COLUMNS = 8  # the number of columns is a multiple of this, so that splits share programs


class Titles:
    """Titles as their words with a space between two: Str [N]. The codec, which has the vocabulary, numbers them."""

    key: ClassVar[str] = "titles"

    @classmethod
    def fit(cls, splits: dict[str, list[str]]) -> "Titles":
        """Return how many words are written at most: those of the longest title of the training split, or `LONGEST`."""
        longest = max(len(split_words(title)) for title in splits["train"])
        if longest == 0:
            raise DataError("no title of the train split has a word: give texts with titles.")
        return cls({"longest": min(longest, LONGEST)})

    def __init__(self, stored: dict[str, int]):
        self._longest = int(stored["longest"])
        self.sizes: dict[str, int | float] = {"title": self._longest}

    def encode(self, values: Sequence[str]) -> Shaped[np.ndarray, " N"]:
        """Return the words of every title."""
        return np.array([" ".join(split_words(title)) for title in values], str)

    def to_json(self) -> dict[str, int]:
        """Return how many words are written at most."""
        return {"longest": self._longest}


class TitleCodec(TextCodec):
    """Texts to batches; the targets [B R] are the numbers of the words of a title, `PADDING` after the last one."""

    def corpus(self, texts: Iterable[list[list[str]]], targets: Any, widths: list[int]) -> Corpus:
        """Return the batches of texts, which are given as the words of their sentences."""
        return super().corpus(texts, self.numbers([title.split() for title in targets]), widths)

    def numbers(self, titles: Sequence[Sequence[str]]) -> Int[np.ndarray, "N R"]:
        """Return the words of titles as numbers; after the last word stands at least one `PADDING`."""
        least = 1 + max([int(self.targets.sizes["title"]), *map(len, titles)])
        array = np.full((len(titles), -(-least // _COLUMNS) * _COLUMNS), PADDING, np.int32)
        for row, title in zip(array, titles, strict=True):
            row[: len(title)] = self.vocabulary.encode(title)
        return array

    def unknown_targets(self, texts: int) -> np.ndarray:
        """Return the targets of texts whose title is not known: titles without words."""
        return self.targets.encode([""] * texts)

    def named(self, record: dict[str, Any], text: str) -> dict[str, Any]:
        """Return the record with the words of the title."""
        return record | {"title": self.title(record["title"])}

    def title(self, numbers: Iterable[int]) -> str:
        """Return the words of these numbers with a space between two."""
        return " ".join(self.vocabulary.words[number - UNKNOWN - 1] for number in numbers)


@dataclasses.dataclass(frozen=True)
class TitleOptions(SourceOptions):
    """Texts of a few sentences, and their titles."""

    suggests: ClassVar[dict[str, Any]] = {"epochs": 6, "evaluations": 1}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 64
    """Batch size, in texts."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 100
    """Words kept of a text; longer texts are cut and counted."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 10
    """Words seen less often, in texts and titles of the training split, are replaced by the unknown word."""


class TitleTask(TextTask):
    """The title of a text, in the words of its author."""

    Options: ClassVar[type] = TitleOptions
    Targets: ClassVar[Any] = Titles
    Codec: ClassVar[type[TextCodec]] = TitleCodec
    objective: ClassVar[str] = "title"

    @classmethod
    def words_of_targets(cls, targets: Iterable[str]) -> Iterator[list[str]]:
        """Yield the words of the titles, which are counted with those of the texts."""
        return map(split_words, targets)

    def __init__(self, options: TitleOptions, examples: Iterable[Example] | None = None):
        rouge.check_installed()
        if options.tokens != "words":
            raise UsageError("titles are written in words, not in pieces: choose an encoder that reads words.")
        super().__init__(options, examples)

    def describe(self) -> dict[str, Any]:
        """Return the sizes, and for every split the words of its titles, and those that the vocabulary lacks."""
        facts = super().describe()
        longest = int(self.codec.sizes["title"])
        for split, corpus in self.splits.items():
            facts[split]["title_words"] = int((corpus.targets != PADDING).sum())
            facts[split]["unknown_title_words"] = int((corpus.targets == UNKNOWN).sum())
            facts[split]["longer_titles"] = int((corpus.targets[:, longest] != PADDING).sum())
        return facts
