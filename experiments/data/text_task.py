"""Tasks whose examples are texts with a target: all that they share; a task file adds where the examples come from."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import tyro

from experiments.base.errors import DataError, UsageError
from experiments.base.options import NOT_DECISIVE, Interval, added
from experiments.data import pretrained
from experiments.data.corpus import Corpus, SentenceShape, TextBatch, bucket_widths
from experiments.data.pieces import WordPieces
from experiments.data.targets import Classes, Targets
from experiments.data.text import Example, Vocabulary, cut, split_sentences, split_words

SPLITS = ("train", "validation", "test")
TargetsType: TypeAlias = type[Targets]


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """How texts become batches."""

    batch_size: Annotated[int, Interval("[1, 65536]")] = 128
    """Batch size, in texts."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 40
    """Words kept of a text; longer texts are cut and counted."""
    buckets: Annotated[int, Interval("[1, 16]")] = 3
    """Number of length buckets: batches hold texts of similar length, and a program is compiled for each bucket."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 2
    """Words seen less often in the training split are replaced by the unknown word."""
    sentences: bool = False
    """Make batches of sentences; on for the encoders that read sentences, and only for them."""
    shortest: Annotated[int, Interval("[1, 65536]"), added(8)] = 8
    """A sentence of fewer words is read together with the next one: bounds the number of sentences."""
    longest: Annotated[int, Interval("[1, 65536]"), added(32)] = 32
    """A sentence of more words is cut into pieces of this many."""
    tokens: Annotated[Literal["words", "minilm"], added("words")] = "words"
    """What stands for a word: the words of the training split, or word pieces of all-MiniLM-L6-v2, of its package."""

    def words_of(self, text: str) -> list[list[str]]:
        """Return the words of every sentence of a text; all in one where there are no sentences."""
        return split_sentences(text) if self.sentences else [split_words(text)]

    @property
    def sentence_shape(self) -> SentenceShape | None:
        """How sentences become rows; None where batches are of words."""
        return SentenceShape(self.shortest, self.longest) if self.sentences else None


@dataclasses.dataclass(frozen=True)
class SourceOptions(TextOptions):
    """Where an archive comes from."""

    archives: Annotated[Path | None, NOT_DECISIVE, tyro.conf.arg(aliases=["--archives"])] = None
    """Folder with upstream's archives; nothing is fetched when given."""
    cache: Annotated[Path, NOT_DECISIVE] = Path("~/.cache/lnpool")
    """Folder that fetched archives are kept in."""


@dataclasses.dataclass(frozen=True)
class SentenceOptions(SourceOptions):
    """A few thousand sentences: small batches, and more epochs."""

    suggests: ClassVar[Mapping[str, Any]] = {"epochs": 8}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 50
    """Batch size, in texts."""


@dataclasses.dataclass(frozen=True)
class LongOptions(SourceOptions):
    """Documents: more words are kept."""

    batch_size: Annotated[int, Interval("[1, 65536]")] = 32
    """Batch size, in texts."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 400
    """Words kept of a text; longer texts are cut and counted."""


def fixed_vocabulary(options: TextOptions) -> Vocabulary | None:
    """Return the vocabulary that comes with the tokens; None where the words of the training split are counted."""
    if options.tokens == "words":
        return None
    if options.sentences:
        raise UsageError(f"--data.tokens {options.tokens} has no sentences: leave out --data.sentences.")
    return pretrained.vocabulary(options.tokens, *places_of(options))


def places_of(options: Any) -> tuple[Path | None, Path]:
    """Return the folder of archives that the user has given, and that of fetched ones."""
    return getattr(options, "archives", None), getattr(options, "cache", SourceOptions.cache)


def splitter(options: TextOptions, vocabulary: Vocabulary | None) -> Callable[[str], list[list[str]]]:
    """Return the function from a text to the tokens of every sentence; all in one where there are no sentences."""
    if options.tokens != "words" and vocabulary is not None:
        pieces = WordPieces(vocabulary.words)
        return lambda text: [pieces(text)]
    return options.words_of


class TextCodec:
    """Texts to batches: a vocabulary, and the targets that the texts of the data set carry."""

    vocabulary_type: ClassVar[type[Vocabulary]] = Vocabulary
    fields: ClassVar[Mapping[str, tuple[str, ...]] | None] = None

    def __init__(self, options: TextOptions, vocabulary: Vocabulary, targets: Targets):
        self.options = options
        self.vocabulary = vocabulary
        self.targets = targets
        self.sizes: dict[str, int | float] = {"words": len(vocabulary), **targets.sizes}
        self.tokens_of = splitter(options, vocabulary)
        """The tokens of every sentence of a text."""
        self.end = () if options.tokens == "words" else WordPieces.end
        """What a text still ends with when it is cut."""
        self.widths = sorted({max(options.max_len >> halvings, 1) for halvings in range(4)})
        """The widths of the batches of `encode`: a program is compiled for each that is met."""

    def corpus(self, texts: Iterable[list[list[str]]], targets: Any, widths: list[int]) -> Corpus:
        """Return the batches of texts, which are given as the words of their sentences."""
        encoded = [[self.vocabulary.encode(sentence) for sentence in text] for text in texts]
        end = self.vocabulary.encode(self.end)
        return Corpus(encoded, targets, widths, self.options.batch_size, self.options.sentence_shape, end)

    def encode(self, records: Iterable[str | Sequence[str]]) -> Iterator[TextBatch]:
        """Yield the texts, in their order, as batches of few shapes; the last one is filled with rows of weight 0.

        A record is a text, or a list of its tokens, some of those that `words` returns.

        A batch is as wide as the smallest of `widths`, `max_len`, its half, quarter and eighth, that holds its texts.
        """
        texts = iter(records)
        while some := list(islice(texts, self.options.batch_size)):
            words = [self.tokens_of(text) if isinstance(text, str) else [[*text]] for text in some]
            longest = max(sum(map(len, sentences)) for sentences in words)
            width = next((width for width in self.widths if width >= longest), self.widths[-1])
            yield from self._batches(words, width)

    def empty(self, width: int) -> TextBatch:
        """Return a batch of this width with one text, which has no words."""
        return next(self._batches([[]], width))

    def _batches(self, texts: list[list[list[str]]], width: int) -> Iterator[TextBatch]:
        return self.corpus(texts, self.unknown_targets(len(texts)), [width]).in_order()

    def unknown_targets(self, texts: int) -> np.ndarray:
        """Return the targets of texts of which nothing is known."""
        return np.zeros(texts, np.int32)

    def named(self, record: dict[str, Any], text: str) -> dict[str, Any]:
        """Return a record of what is predicted of a text; places in the text become what stands there."""
        return record

    def words(self, text: str) -> list[str]:
        """Return the words of a text that a model reads: those after the first `max_len` are cut."""
        return [*cut([word for sentence in self.tokens_of(text) for word in sentence], self.options.max_len, self.end)]

    def to_json(self) -> dict[str, Any]:
        """Return words and targets."""
        return {self.targets.key: self.targets.to_json(), "words": [*self.vocabulary.words]}


def check_texts(task: type) -> None:
    """Raise UsageError where a task is none of texts with a target each."""
    if not issubclass(task, TextTask):
        raise UsageError("the baseline needs a task of texts with a target each, which this one is not.")


class TextTask:
    """A task of texts with a target each; see `experiments.base.contracts.Task`.

    A task file says what its `Options` are, what its texts carry (`Targets`) and how `examples` reads them.
    """

    Options: ClassVar[type] = TextOptions
    Targets: ClassVar[TargetsType] = Classes
    Codec: ClassVar[type[TextCodec]] = TextCodec
    objective: ClassVar[str] = "classify"

    @classmethod
    @abc.abstractmethod
    def examples(cls, options: Any) -> Iterable[Example]:
        """Return the examples of all splits."""

    @classmethod
    def objective_of(cls, options: Any) -> str:
        """Return the objective that is learned where none is named."""
        return cls.objective

    @classmethod
    def targets_of(cls, options: Any) -> TargetsType:
        """Return what the texts carry."""
        return cls.Targets

    @classmethod
    def words_of_targets(cls, targets: Iterable[Any]) -> Iterable[list[str]]:
        """Return the words that targets are made of; those of the training split are counted with those of texts."""
        return ()

    @classmethod
    def codec_of(cls, options: TextOptions, stored: dict[str, Any]) -> TextCodec:
        """Return the codec that a run has stored."""
        kind = cls.targets_of(options)
        return cls.Codec(options, cls.Codec.vocabulary_type(stored["words"]), kind(stored[kind.key]))

    def __init__(self, options: TextOptions, examples: Iterable[Example] | None = None):
        vocabulary = fixed_vocabulary(options)
        tokens_of = splitter(options, vocabulary)
        words: dict[str, list[list[list[str]]]] = {split: [] for split in SPLITS}
        targets: dict[str, list[Any]] = {split: [] for split in SPLITS}
        for text, target, split in self.examples(options) if examples is None else examples:
            words[split].append(tokens_of(text))
            targets[split].append(target)
        for split in SPLITS:
            if not words[split]:
                raise DataError(f"the {split} split has no examples: give the data more rows.")
        fitted = self.targets_of(options).fit(targets)
        if vocabulary is None:
            counted = chain(chain.from_iterable(words["train"]), self.words_of_targets(targets["train"]))
            vocabulary = self.Codec.vocabulary_type.count(counted, options.min_count)
        self.codec = self.Codec(options, vocabulary, fitted)
        lengths = [sum(map(len, text)) for text in words["train"]]
        widths = bucket_widths(lengths, options.buckets, options.max_len)
        self.splits = {
            split: self.codec.corpus(words[split], fitted.encode(targets[split]), widths) for split in SPLITS
        }
        self.steps_per_epoch = self.splits["train"].batches_per_epoch

    def describe(self) -> dict[str, Any]:
        """Return the sizes and the counts of cut and empty texts."""
        names = {"words": "vocabulary"}
        facts: dict[str, Any] = {names.get(name, name): size for name, size in self.codec.sizes.items()}
        for name, corpus in self.splits.items():
            facts[name] = {"texts": len(corpus), "truncated": corpus.truncated, "empty": corpus.empty}
            facts[name]["digest"] = corpus.digest()
        return facts

    def train_batch(self, seed: int, step: int) -> TextBatch:
        """Return the batch of a step."""
        return self.splits["train"].shuffled(seed, step)

    def train_rows(self, seed: int, step: int) -> list[int]:
        """Return which texts of the training split make the batch of a step."""
        return self.splits["train"].rows(seed, step)

    def batches(self, split: str) -> Iterator[TextBatch]:
        """Yield every example of a split once."""
        return self.splits[split].in_order()
