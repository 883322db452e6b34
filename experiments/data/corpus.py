"""Batches of texts of similar length, in an order that is a pure function of (seed, epoch)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.text import PADDING, cut


class TextBatch(NamedTuple):
    """Texts of one length bucket, as host arrays; sentences [B S W] where the encoder reads them."""

    tokens: Int[np.ndarray, "B T *W"]
    mask: Bool[np.ndarray, "B T *W"]
    targets: Int[np.ndarray, "B *R"] | Float[np.ndarray, "B *C"]
    """The class of a text, its tags (0 or 1 each), a number, or the words of its title."""
    weights: Float[np.ndarray, "B"]
    """1 at a text, 0 at the empty rows that fill the last batch of a bucket."""
    states: Float[np.ndarray, "B T D"] | None = None
    """The states of the tokens, where an encoder that does not change has read them before (`Corpus.remember`)."""


class SentenceShape(NamedTuple):
    """How the sentences of a text become rows of words.

    No word is left out. A sentence of fewer than `shortest` words shares its row with the next one, which bounds the
    number of rows; one of more than `longest` words is cut into rows of that length.
    """

    shortest: int
    longest: int

    def grid(self, width: int) -> tuple[int, int]:
        """Return the shape [S, W] that holds any text of at most `width` words."""
        longest = min(self.longest, width)
        return -(-width // min(self.shortest, longest)), longest

    def places(self, lengths: Sequence[int], width: int) -> Int[np.ndarray, "2 N"]:
        """Return row and column of every word of a text from the lengths of its sentences.

        >>> SentenceShape(shortest=2, longest=3).places([1, 1, 4], width=8).tolist()
        [[0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0]]
        """
        _, longest = self.grid(width)
        row, column, found = 0, 0, []
        for length in lengths:
            for _ in range(length):
                if column == longest:
                    row, column = row + 1, 0
                found.append((row, column))
                column += 1
            if column >= self.shortest:
                row, column = row + 1, 0
        return np.array(found, np.int32).reshape(-1, 2).T


class Corpus:
    """Encoded texts of one split, cut to the last of `widths` words, and the length bucket of every text.

    Every batch has the shape [batch_size, width of a bucket], so a program compiles once a bucket; with `sentences` the
    shape is [batch_size, S, W] (`SentenceShape.grid`). The last batch of a bucket is filled with empty rows.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[Sequence[int]]],
        targets: np.ndarray,
        widths: Sequence[int],
        batch_size: int,
        sentences: SentenceShape | None = None,
        end: Sequence[int] = (),
    ):
        max_len = widths[-1]
        lengths = np.array([sum(map(len, text)) for text in texts], np.int64)
        self.truncated = int((lengths > max_len).sum())
        self.empty = int((lengths == 0).sum())
        self.lengths: Int[np.ndarray, " N"] = np.minimum(lengths, max_len)
        self.tokens: Int[np.ndarray, "N T"] = np.full((len(texts), max_len), PADDING, np.int32)
        for row, text in enumerate(texts):
            words = [word for sentence in text for word in sentence]
            self.tokens[row, : self.lengths[row]] = cut(words, max_len, end)
        self.targets = targets
        self.batch_size = batch_size
        self.sentences = sentences
        self._remembered: tuple[str, Float[np.ndarray, "N D"]] | None = None
        self._sentence_lengths = [[len(sentence) for sentence in text] for text in texts] if sentences else []
        bucket = np.searchsorted(widths, self.lengths)
        self.buckets = [(width, np.flatnonzero(bucket == index)) for index, width in enumerate(widths)]
        self.plan = lru_cache(maxsize=1)(self._plan)
        self.batches_per_epoch = sum(-(-len(rows) // batch_size) for _, rows in self.buckets)

    def __len__(self) -> int:
        return len(self.targets)

    def digest(self) -> str:
        """Return a fingerprint of the texts and targets in their order."""
        content = hashlib.sha256(self.tokens.reshape(-1).data)
        content.update(self.lengths.tobytes() + np.ascontiguousarray(self.targets).tobytes())
        return content.hexdigest()[:16]

    def remember(self, reader: str, read: Callable[[TextBatch], np.ndarray]) -> None:
        """Keep the states of all tokens; from now on batches bring them.

        Args:
            reader: names what `read` depends on: states of the same reader are not computed again.
            read: returns the states [B T D] of a batch. Those of a text may not depend on its batch.
        """
        if self._remembered and self._remembered[0] == reader:
            return
        self._remembered, table = None, None
        for batch, rows in ((self._batch(*planned), planned[1]) for planned in self._in_order()):
            states = read(batch)
            table = np.zeros((self.lengths.sum(), states.shape[-1]), states.dtype) if table is None else table
            table[self._places(rows, batch.mask)] = states[batch.mask]
        self._remembered = None if table is None else (reader, table)

    def forget(self) -> None:
        """Let batches bring no states."""
        self._remembered = None

    def _places(self, rows: np.ndarray, mask: Bool[np.ndarray, "B T"]) -> Int[np.ndarray, " M"]:
        """Return where the states of the real tokens of some rows are kept, row by row."""
        starts = np.zeros(len(mask), np.int64)
        starts[: len(rows)] = (np.cumsum(self.lengths) - self.lengths)[rows]
        return (starts[:, None] + np.arange(mask.shape[1]))[mask]

    def in_order(self) -> Iterator[TextBatch]:
        """Return every text once, short ones first."""
        return (self._batch(*planned) for planned in self._in_order())

    def _in_order(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the width and the rows of every batch, short texts first."""
        for width, rows in self.buckets:
            yield from ((width, part) for part in self._parts(rows))

    def shuffled(self, seed: int, step: int) -> TextBatch:
        """Return the batch of a training step."""
        return self._batch(*self._planned(seed, step))

    def rows(self, seed: int, step: int) -> list[int]:
        """Return which texts make the batch of a training step."""
        return self._planned(seed, step)[1].tolist()

    def _planned(self, seed: int, step: int) -> tuple[int, np.ndarray]:
        """Return the width and the rows of the batch of a training step."""
        epoch, index = divmod(step, self.batches_per_epoch)
        return self.plan(seed, epoch)[index]

    def _plan(self, seed: int, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return the width and the rows of every batch: rows mix within a bucket, batches mix across buckets."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        batches = []
        for width, rows in self.buckets:
            rows = random.permutation(rows)
            batches += [(width, part) for part in self._parts(rows)]
        return [batches[index] for index in random.permutation(len(batches))]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the rows in pieces of the batch size."""
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _batch(self, width: int, rows: np.ndarray) -> TextBatch:
        """Return the rows as one batch, filled up to the batch size."""
        missing = self.batch_size - len(rows)
        weights = (np.arange(self.batch_size) < len(rows)).astype(np.float32)
        targets = np.pad(self.targets[rows], [(0, missing)] + [(0, 0)] * (self.targets.ndim - 1))
        if self.sentences is not None:
            return TextBatch(*self._by_sentence(self.sentences, width, rows), targets, weights)
        tokens = np.pad(self.tokens[rows, :width], ((0, missing), (0, 0)), constant_values=PADDING)
        mask = np.arange(width) < np.pad(self.lengths[rows], (0, missing))[:, None]
        if self._remembered is None:
            return TextBatch(tokens, mask, targets, weights)
        table = self._remembered[1]
        states = np.zeros((*mask.shape, table.shape[1]), table.dtype)
        states[mask] = table[self._places(rows, mask)]
        return TextBatch(tokens, mask, targets, weights, states)

    def _by_sentence(
        self, shape: SentenceShape, width: int, rows: np.ndarray
    ) -> tuple[Int[np.ndarray, "B S W"], Bool[np.ndarray, "B S W"]]:
        """Return the words of every sentence, and which of them are real."""
        tokens = np.full((self.batch_size, *shape.grid(width)), PADDING, np.int32)
        for at, row in enumerate(rows):
            sentence, place = shape.places(self._sentence_lengths[row], width)[:, : self.lengths[row]]
            tokens[at, sentence, place] = self.tokens[row, : self.lengths[row]]
        return tokens, tokens != PADDING


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
