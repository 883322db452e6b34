"""Titles as numbers of words: how well those that are written agree with the right ones; the words of a text."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.data import rouge
from experiments.data.text import PADDING, UNKNOWN

END = PADDING
"""The word that ends a title; it stands before the first word too."""


class _Part(NamedTuple):
    """A batch: titles as the numbers of their words, `END` after the last one."""

    right: Int[Array, "B R"]
    found: Int[Array, "B L"]
    weights: Float[Array, " B"]
    nats: Float[Array, ""]
    words: Float[Array, ""]


class TitleScores(NamedTuple):
    """Titles that are right and found, batch by batch."""

    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, right: Any, found: Any, weights: Any, losses: Any, counted: Any) -> "TitleScores":
        """Return the titles of a batch.

        Args:
            right: the titles of the texts [B R].
            found: those that are written [B L].
            weights: 0 at empty rows.
            losses: -log p of the words of the right titles, after those before them [B N].
            counted: the weights of these.
        """
        return cls((_Part(right, found, weights, (counted * losses).sum(), counted.sum()),))

    def __add__(self, other: "TitleScores") -> "TitleScores":  # type: ignore[override]
        return TitleScores(self.parts + other.parts)

    def compute(self) -> dict[str, float]:
        """Return the mean ROUGE of the titles, and the perplexity of a word, ends included, after the right words.

        A word that the vocabulary lacks is in no title that is found, so it counts as a word that is missed.
        """
        pairs = [
            (words_of(right), words_of(found))
            for part in self.parts
            for right, found, weight in zip(*map(np.asarray, part[:3]), strict=True)
            if weight > 0
        ]
        nats, words = (sum(np.float64(getattr(part, name)) for part in self.parts) for name in ("nats", "words"))
        return {**rouge.scores(pairs), "perplexity": float(np.exp(nats / max(words, 1)))}


def words_of(title: Int[np.ndarray, " L"]) -> list[int]:
    """Return the words of a title, those before the first `END`."""
    return title[: np.argmax(title == END) if (title == END).any() else len(title)].tolist()


def present(tokens: Int[Array, "B *S"], mask: Bool[Array, "B *S"], vocabulary: int) -> Bool[Array, "B V"]:
    """Return which words of the vocabulary stand in a text; padding and the unknown word stand in none."""
    words = jnp.where(mask, tokens, PADDING).reshape(tokens.shape[0], -1)
    rows = jnp.arange(words.shape[0])[:, None]
    found = jnp.zeros((words.shape[0], vocabulary), bool).at[rows, words].set(True)
    return found & (jnp.arange(vocabulary) > UNKNOWN)
