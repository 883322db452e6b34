"""Precision, recall and F1 of sets of triples: those of a text are compared by their words, each counts once."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from experiments.data.triples import NOWHERE, find

Triple: TypeAlias = tuple[Any, ...]


class _Part(NamedTuple):
    """A batch: rows of triples as in `experiments.data.triples`, and what tells words and seen triples apart."""

    truth: Int[np.ndarray, "B M 7"]
    found: Int[np.ndarray, "B N 7"]
    right: Int[np.ndarray, "B R 7"]
    known: Int[np.ndarray, "B K 7"]
    forms: Int[np.ndarray, "B T"]
    weights: Float[np.ndarray, "B"]


class TripleSets(NamedTuple):
    """The triples of texts, batch by batch."""

    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, truth: Any, found: Any, right: Any, known: Any, forms: Any, weights: Any) -> "TripleSets":
        """Return the sets of a batch.

        Args:
            truth: what the texts say [B M 7].
            found: what a model says [B N 7].
            right: what is read from the right tags, the most that a model of the scheme can say [B R 7].
            known: the triples of the training split that the texts could say [B K 7].
            forms: where each word first stands in its text [B T].
            weights: 0 at empty rows.
        """
        return cls((_Part(truth, found, right, known, forms, weights),))

    def __add__(self, other: "TripleSets") -> "TripleSets":  # type: ignore[override]
        return TripleSets(self.parts + other.parts)

    def compute(self) -> dict[str, float]:
        """Return precision, recall and F1 over all texts, of triples and of triples with the types of both ends.

        `seen_` and `unseen_` count only triples that are in the training split, or not. `ceiling_` is of `right`.
        """
        counts = {name: np.zeros(3) for name in ("", "typed_", "seen_", "unseen_", "ceiling_")}
        for part in self.parts:
            for text in zip(*map(np.asarray, part), strict=True):
                for name, (truth, found) in _compared(_Part(*text)):
                    counts[name] += len(truth & found), len(found), len(truth)
        return {f"{name}{key}": value for name, three in counts.items() for key, value in scores(*three).items()}


def scores(hits: float, found: float, truth: float) -> dict[str, float]:
    """Return precision, recall and F1; 0 where nothing is found or true."""
    return {
        "precision": float(hits / max(found, 1)),
        "recall": float(hits / max(truth, 1)),
        "f1": float(2 * hits / max(found + truth, 1)),
    }


def _compared(text: _Part) -> Iterator[tuple[str, tuple[set[Triple], set[Triple]]]]:
    """Yield, under the name of a comparison, the triples of a text and those that are found in it."""
    if text.weights == 0:
        return
    words = text.forms[text.forms != NOWHERE].tolist()
    truth, found, right, known = (_triples(words, rows) for rows in text[:4])
    plain = set(truth), set(found)
    yield "", plain
    yield "typed_", (_typed(truth), _typed(found))
    yield "seen_", (plain[0] & known.keys(), plain[1] & known.keys())
    yield "unseen_", (plain[0] - known.keys(), plain[1] - known.keys())
    yield "ceiling_", (plain[0], set(right))


def _typed(triples: dict[Triple, set[tuple[int, int]]]) -> set[Triple]:
    return {(triple, kinds) for triple, found in triples.items() for kinds in found}


def _triples(words: list[int], rows: Int[np.ndarray, "N 7"]) -> dict[Triple, set[tuple[int, int]]]:
    """Return the triples by the places where their words first stand, each with the types of subject and object.

    What does not stand in the text is different from all else.
    """

    def place(number: int, first: int, last: int) -> tuple[int, int]:
        if first == NOWHERE or last >= len(words):
            return NOWHERE, number
        at = find(words, words[first : last + 1])
        return at, at + last - first

    found: dict[Triple, set[tuple[int, int]]] = {}
    for number, (s0, s1, s_kind, predicate, o0, o1, o_kind) in enumerate(rows.tolist()):
        if predicate != NOWHERE:
            triple = place(number, s0, s1), predicate, place(number, o0, o1)
            found.setdefault(triple, set()).add((s_kind, o_kind))
    return found
