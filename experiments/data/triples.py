"""Texts with triples (subject, predicate, object): what they carry, and how they become batches.

Subject and object are mentions, runs of words of the text; two triples of a text are the same if their words and the
predicate are, wherever they stand. A triple is seen if the training split has it.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.base.errors import DataError, UsageError
from experiments.base.options import Interval
from experiments.data.corpus import Corpus, TextBatch
from experiments.data.text import Example, Vocabulary
from experiments.data.text_task import SourceOptions, TextCodec, TextTask

WORDS = {
    "spaces": re.compile(r"\S+"),
    "marks": re.compile(r"(?:[^\W\d_]\.){2,}|'s\b|[^\W_]+(?:'(?!s\b)[^\W_]+)*|([^\w\s])\1*|_+"),
}
"""What a word is: all between two spaces; or letters and digits, an abbreviation of single letters, a genitive, a run
of one mark. The case stays."""
SHAPES = ("padding", "lower", "Capital", "UPPER", "U", "miXed", "12", "a1", "mark")
"""Ways to write a word."""
NOWHERE = -1
"""The place of what does not stand in the text, and the number of a predicate or type that there is not."""
COLUMNS = 7
"""Numbers of a row: first and last word and type of the subject, the predicate, first and last word and type of the
object. A row without a predicate is a mention that is the subject of no triple."""
_ROWS = 8  # the number of rows is a multiple of this, so that splits share programs


class Mention(NamedTuple):
    """A run of words."""

    words: str
    """The words, with a space between two."""
    first: int = NOWHERE
    last: int = NOWHERE
    kind: str = ""
    """Its type, as "Peop"."""


class Facts(NamedTuple):
    """What a text says."""

    mentions: tuple[Mention, ...]
    triples: tuple[tuple[int, str, int], ...]
    """Subject and object by their place among the mentions, the predicate between them."""


def words_with_places(text: str, how: str) -> list[tuple[str, int, int]]:
    """Return the words of a text, each with the place of its first character and the one after its last.

    >>> [word for word, _, _ in words_with_places("U.S. Sen. O'Neil's 50-to--60 (a_b)", "marks")]
    ['U.S.', 'Sen', '.', "O'Neil", "'s", '50', '-', 'to', '--', '60', '(', 'a', '_', 'b', ')']
    """
    return [(found[0], *found.span()) for found in WORDS[how].finditer(text)]


def split_words(text: str, how: str) -> list[str]:
    """Return the words of a text, case and marks kept."""
    return [word for word, _, _ in words_with_places(text, how)]


def shape(word: str) -> int:
    """Return the place in `SHAPES` of the way a word is written."""
    if not any(map(str.isalnum, word)):
        name = "mark"
    elif any(map(str.isdigit, word)):
        name = "a1" if any(map(str.isalpha, word)) else "12"
    elif word.islower() or word == word.lower():
        name = "lower"
    elif word == word.upper():
        name = "U" if len(word) == 1 else "UPPER"
    else:
        name = "Capital" if word[:1].isupper() and word[1:] == word[1:].lower() else "miXed"
    return SHAPES.index(name)


def find(words: Sequence[Any], part: Sequence[Any], start: int = 0) -> int:
    """Return where a run of words first stands, from `start` on; `NOWHERE` if it does not."""
    some = range(start, len(words) - len(part) + 1) if part else ()
    return next((at for at in some if list(words[at : at + len(part)]) == list(part)), NOWHERE)


class CaselessVocabulary(Vocabulary):
    """A table of words in lower case, for words of any case."""

    @classmethod
    def count(cls, texts: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
        """Keep the words seen `min_count` times in any case."""
        return super().count(([word.lower() for word in words] for words in texts), min_count)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Return one number a word."""
        return super().encode([word.lower() for word in words])


class Triples:
    """Mentions and triples of a text as rows of `COLUMNS` numbers: Int [N M 7], `NOWHERE` where there is nothing.

    Predicates and types that the training split lacks have a number beyond those that it has, or `NOWHERE`: triples
    with such a predicate cannot be found, and count.
    """

    key: ClassVar[str] = "triples"

    @classmethod
    def fit(cls, splits: dict[str, list[Facts]]) -> "Triples":
        """Return predicates, types and triples of the training split."""
        facts = splits["train"]
        known = {
            (*text.mentions[subject][::3], predicate, *text.mentions[object_][::3])
            for text in facts
            for subject, predicate, object_ in text.triples
        }
        if not known:
            raise DataError("no text of the train split has a triple: give texts with triples.")
        kinds = sorted({mention.kind for text in facts for mention in text.mentions})
        return cls({"kinds": kinds, "known": sorted(map(list, known))})

    def __init__(self, stored: dict[str, Any]):
        self.kinds = tuple(stored["kinds"])
        self.known = tuple((*map(str, triple),) for triple in stored["known"])
        """The triples of the training split: words and type of the subject, predicate, words and type of the object."""
        self.predicates = tuple(sorted({predicate for _, _, predicate, _, _ in self.known}))
        self.sizes: dict[str, int | float] = {"predicates": len(self.predicates), "kinds": len(self.kinds)}
        self._kind = {name: number for number, name in enumerate(self.kinds)}
        self._predicate = {name: number for number, name in enumerate(self.predicates)}

    def encode(self, values: Sequence[Facts]) -> Int[np.ndarray, "N M 7"]:
        """Return the rows of every text."""
        rows = [self._rows(facts) for facts in values]
        return _stacked(rows)

    def _rows(self, facts: Facts) -> list[tuple[int, ...]]:
        places = [(mention.first, mention.last, self._kind.get(mention.kind, NOWHERE)) for mention in facts.mentions]
        beyond = len(self.predicates)
        rows: list[tuple[int, ...]] = [
            (*places[subject], self._predicate.get(predicate, beyond), *places[object_])
            for subject, predicate, object_ in facts.triples
        ]
        subjects = {subject for subject, _, _ in facts.triples}
        nothing = (NOWHERE,) * 4
        return rows + [(*place, *nothing) for at, place in enumerate(places) if at not in subjects]

    def seen_in(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the triples of the training split whose subject and object stand in a text, as rows."""
        line = f" {' '.join(words)} "
        return [
            (*self._place(words, subject, one), self._predicate[predicate], *self._place(words, object_, other))
            for subject, one, predicate, object_, other in self.known
            if f" {subject} " in line and f" {object_} " in line
        ]

    def _place(self, words: Sequence[str], part: str, kind: str) -> tuple[int, int, int]:
        mention = mention_of(words, part.split(" "))
        return mention.first, mention.last, self._kind[kind]

    def to_json(self) -> dict[str, Any]:
        """Return the types, and the triples of the training split."""
        return {"kinds": [*self.kinds], "known": [[*triple] for triple in self.known]}


def _stacked(rows: Sequence[Sequence[tuple[int, ...]]]) -> Int[np.ndarray, "N M 7"]:
    """Return lists of rows as one array, filled up with `NOWHERE`."""
    most = max([1, *map(len, rows)])
    array = np.full((len(rows), -(-most // _ROWS) * _ROWS, COLUMNS), NOWHERE, np.int32)
    for at, some in enumerate(rows):
        array[at, : len(some)] = np.array(some, np.int32).reshape(-1, COLUMNS)
    return array


class TripleBatch(NamedTuple):
    """Texts with their triples, as host arrays; the first four are those of `TextBatch`."""

    tokens: Int[np.ndarray, "B T"]
    mask: Bool[np.ndarray, "B T"]
    targets: Int[np.ndarray, "B M 7"]
    weights: Float[np.ndarray, "B"]
    shapes: Int[np.ndarray, "B T"]
    """How every word is written, a place in `SHAPES`."""
    forms: Int[np.ndarray, "B T"]
    """Where every word, written so, first stands in the text: equal words have equal numbers."""
    known: Int[np.ndarray, "B K 7"]
    """The triples of the training split that the text could say."""


class TripleCorpus(Corpus):
    """Texts with the way their words are written, and the known triples that they could say."""

    def __init__(self, words: Sequence[Sequence[str]], targets: Triples, *corpus: Any):
        super().__init__(*corpus)
        self.known = _stacked([targets.seen_in(text) for text in words])
        self.shapes, self.forms = np.zeros_like(self.tokens), np.full_like(self.tokens, NOWHERE)
        for row, (text, length) in enumerate(zip(words, self.lengths, strict=True)):
            places: dict[str, int] = {}
            self.shapes[row, :length] = [shape(word) for word in text[:length]]
            self.forms[row, :length] = [places.setdefault(word, at) for at, word in enumerate(text[:length])]

    def _batch(self, width: int, rows: np.ndarray) -> TextBatch:
        arrays = (self.shapes[rows, :width], self.forms[rows, :width], self.known[rows])
        missing = self.batch_size - len(rows)
        filled = (np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) for array in arrays)
        batch = super()._batch(width, rows)
        return TripleBatch(batch.tokens, batch.mask, batch.targets, batch.weights, *filled)  # type: ignore[return-value]


class TripleCodec(TextCodec):
    """Texts to batches of words with their case."""

    vocabulary_type = CaselessVocabulary
    targets: Triples
    options: "TripleOptions"

    def corpus(self, texts: Iterable[list[list[str]]], targets: Any, widths: list[int]) -> Corpus:
        """Return the batches of texts, which are given as the words of their sentences."""
        words = [[word for sentence in text for word in sentence] for text in texts]
        encoded = [[self.vocabulary.encode(text)] for text in words]
        shape_of = self.options.sentence_shape
        return TripleCorpus(words, self.targets, encoded, targets, widths, self.options.batch_size, shape_of)

    def unknown_targets(self, texts: int) -> np.ndarray:
        """Return the targets of texts of which nothing is known."""
        return self.targets.encode([Facts((), ())] * texts)

    def named(self, record: dict[str, Any], text: str) -> dict[str, Any]:
        """Return the record with the words of the text at the places of subjects and objects."""
        places = words_with_places(text, self.options.words)

        def words(span: Sequence[int]) -> str:
            return text[places[span[0]][1] : places[span[1]][2]]

        triples = [triple | {end: words(triple[end]) for end in ("subject", "object")} for triple in record["triples"]]
        return record | {"triples": triples}


@dataclasses.dataclass(frozen=True)
class TripleOptions(SourceOptions):
    """Words with their case, and marks."""

    suggests: ClassVar[dict[str, Any]] = {"epochs": 30, "optim": {"average": 0.99}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    words: Literal["spaces", "marks"] = "marks"
    """What a word is: all between two spaces, for texts that are split already; or letters and digits, and marks."""
    batch_size: Annotated[int, Interval("[1, 65536]")] = 32
    """Batch size, in texts."""
    max_len: Annotated[int, Interval("[1, 65536]")] = 128
    """Words kept of a text; longer texts are cut and counted."""
    min_count: Annotated[int, Interval("[1, 1000000]")] = 1
    """Words seen less often in the training split are replaced by the unknown word."""

    def words_of(self, text: str) -> list[list[str]]:
        """Return the words of a text, all in one sentence."""
        return [split_words(text, self.words)]


class TripleTask(TextTask):
    """What a text says, as triples."""

    Options: ClassVar[type] = TripleOptions
    Targets: ClassVar[type] = Triples
    Codec: ClassVar[type[TextCodec]] = TripleCodec
    objective: ClassVar[str] = "triples"

    def __init__(self, options: TripleOptions, examples: Iterable[Example] | None = None):
        if options.sentences or options.tokens != "words":
            raise UsageError("triples are of words: choose an encoder that reads words, neither sentences nor pieces.")
        super().__init__(options, examples)

    def describe(self) -> dict[str, Any]:
        """Return the sizes, and for every split the triples, and those whose subject or object is not in the text."""
        facts = super().describe()
        for split, corpus in self.splits.items():
            triples = corpus.targets[corpus.targets[..., 3] >= 0]
            facts[split]["triples"] = len(triples)
            facts[split]["triples_not_found"] = int((triples[:, [0, 4]] == NOWHERE).any(axis=1).sum())
        return facts


def mention_of(words: Sequence[str], wanted: Sequence[str]) -> Mention:
    """Return where a run of words first stands in a text."""
    at = find(words, wanted)
    return Mention(" ".join(wanted), at, NOWHERE if at == NOWHERE else at + len(wanted) - 1)


def as_facts(triples: Iterable[tuple[Mention, str, Mention]], others: Iterable[Mention] = ()) -> Facts:
    """Return triples and the mentions in none of them as the facts of a text, every one once."""
    kept = list(dict.fromkeys(triples))
    ends: Iterator[Mention] = (end for subject, _, object_ in kept for end in (subject, object_))
    place = {mention: at for at, mention in enumerate(dict.fromkeys([*ends, *others]))}
    return Facts(tuple(place), tuple((place[subject], name, place[object_]) for subject, name, object_ in kept))
