"""Text classification: all that a task with texts and classes needs; a task file adds where the examples come from."""

import abc
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch
from experiments.base.errors import DataError
from experiments.base.options import Interval
from experiments.data.corpus import Corpus
from experiments.data.text import END, Example, Vocabulary, split_sentences, split_words
from experiments.objectives.losses import cross_entropy, weighted_mean
from experiments.objectives.metrics import Classification

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """How texts become batches."""

    batch_size: Annotated[int, Interval("[1, 65536]")] = 128
    """Texts a batch."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 40
    """Words kept of a text; longer texts are cut and counted."""
    buckets: Annotated[int, Interval("[1, 16]")] = 3
    """Number of text lengths that batches are made for: the number of compilations."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 2
    """A word seen less often in the training split is the unknown word."""
    sentences: bool = False
    """Keep the end of a sentence as a word; the default is what the encoder needs."""

    def words_of(self, text: str) -> list[str]:
        """Return the words of a text."""
        return split_sentences(text) if self.sentences else split_words(text)


@dataclasses.dataclass(frozen=True)
class SourceOptions(TextOptions):
    """Where an archive comes from."""

    archives: Annotated[Path | None, tyro.conf.arg(aliases=["--archives"])] = None
    """Folder with upstream's archives; nothing is fetched when given."""
    cache: Path = Path("~/.cache/lnpool")
    """Folder that fetched archives are kept in."""


@dataclasses.dataclass(frozen=True)
class SentenceOptions(SourceOptions):
    """A few thousand sentences: small batches, and more epochs."""

    suggests: ClassVar[Mapping[str, Any]] = {"epochs": 8}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 50
    """Texts a batch."""


@dataclasses.dataclass(frozen=True)
class LongOptions(SourceOptions):
    """Documents: more words are kept."""

    batch_size: Annotated[int, Interval("[1, 65536]")] = 32
    """Texts a batch."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 400
    """Words kept of a text; longer texts are cut and counted."""


class TextClassification:
    """A task whose examples carry one class each; see `experiments.base.contracts.Task`.

    A task file says what its `Options` are and how `examples` reads them.
    """

    Options: ClassVar[type] = TextOptions
    chosen_by = "accuracy"

    @classmethod
    @abc.abstractmethod
    def examples(cls, options: Any) -> Iterable[Example]:
        """Return the examples of all splits."""

    def __init__(self, options: TextOptions, examples: Iterable[Example] | None = None):
        words: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
        classes: dict[str, list[str]] = {split: [] for split in SPLITS}
        for text, label, split in self.examples(options) if examples is None else examples:
            words[split].append(options.words_of(text))
            classes[split].append(label)
        for split in SPLITS:
            if not words[split]:
                raise DataError(f"the {split} split has no examples: give the data more rows.")
        self.labels = tuple(sorted(set().union(*classes.values())))
        if len(self.labels) < 2:
            raise DataError(f"every text has the class {self.labels[0]!r}: give texts of at least two classes.")
        self.vocabulary = Vocabulary.count(words["train"], options.min_count, [END] if options.sentences else [])
        widths = bucket_widths([len(text) for text in words["train"]], options.buckets, options.max_len)
        self.splits = {
            split: Corpus(
                [self.vocabulary.encode(text) for text in words[split]],
                [self.labels.index(label) for label in classes[split]],
                widths,
                options.batch_size,
            )
            for split in SPLITS
        }
        self.steps_per_epoch = self.splits["train"].batches_per_epoch

    def describe(self) -> dict[str, Any]:
        """Return the sizes and the counts of cut and empty texts."""
        facts: dict[str, Any] = {"classes": len(self.labels), "vocabulary": len(self.vocabulary)}
        for name, corpus in self.splits.items():
            facts[name] = {"texts": len(corpus), "truncated": corpus.truncated, "empty": corpus.empty}
            facts[name]["digest"] = corpus.digest()
        return facts

    def train_batch(self, seed: int, step: int) -> Batch:
        """Return the batch of a step."""
        return self.splits["train"].shuffled(seed, step)

    def train_rows(self, seed: int, step: int) -> list[int]:
        """Return which texts of the training split make the batch of a step."""
        return self.splits["train"].rows(seed, step)

    def evaluation_batches(self, split: str) -> Iterator[Batch]:
        """Yield every example of a split once."""
        return self.splits[split].in_order()

    def loss(self, logits: Float[Array, "B C"], batch: Batch) -> Float[Array, ""]:
        """Return the mean cross entropy."""
        return weighted_mean(cross_entropy(logits, batch.labels), batch.weights)

    def metrics(self, logits: Float[Array, "B C"], batch: Batch) -> Classification:
        """Return the sums behind accuracy, macro-F1 and loss."""
        return Classification.of(logits, batch.labels, batch.weights)


def bucket_widths(lengths: Sequence[int], buckets: int, max_len: int) -> list[int]:
    """Return widths that give every bucket about the same number of words; the last is `max_len`.

    >>> bucket_widths([1, 2, 3, 4, 5, 5, 10, 30], buckets=3, max_len=32)
    [5, 30, 32]
    """
    ordered = np.sort(lengths)
    words = np.cumsum(ordered)
    shares = np.arange(1, buckets) / buckets
    inner = set(ordered[np.searchsorted(words, shares * words[-1])].tolist())
    return sorted({width for width in inner if 0 < width < max_len} | {max_len})
