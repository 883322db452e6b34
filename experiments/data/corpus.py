"""Batches of texts of similar length, in an order that is a pure function of (seed, epoch)."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from experiments.base import devices
from experiments.base.contracts import Batch
from experiments.data.text import PADDING


class Corpus:
    """Encoded texts of one split, cut to `max_len` words, and the bucket of every text.

    Every batch has the shape [batch_size, width of a bucket], so a program compiles once a bucket. The last batch of a
    bucket is filled with empty rows of weight 0.
    """

    def __init__(self, texts: Sequence[Sequence[int]], labels: Sequence[int], widths: Sequence[int], batch_size: int):
        max_len = widths[-1]
        lengths = np.array([len(text) for text in texts])
        self.truncated = int((lengths > max_len).sum())
        self.empty = int((lengths == 0).sum())
        self.lengths: Int[np.ndarray, " N"] = np.minimum(lengths, max_len)
        self.tokens: Int[np.ndarray, "N T"] = np.full((len(texts), max_len), PADDING, np.int32)
        for row, text in enumerate(texts):
            self.tokens[row, : self.lengths[row]] = text[:max_len]
        self.labels: Int[np.ndarray, " N"] = np.asarray(labels, np.int32)
        self.batch_size = batch_size
        bucket = np.searchsorted(widths, self.lengths)
        self.buckets = [(width, np.flatnonzero(bucket == index)) for index, width in enumerate(widths)]
        self.plan = lru_cache(maxsize=1)(self._plan)
        self.batches_per_epoch = sum(-(-len(rows) // batch_size) for _, rows in self.buckets)

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return a fingerprint of the texts and labels in their order."""
        content = hashlib.sha256(self.tokens.reshape(-1).data)
        content.update(self.lengths.tobytes() + self.labels.tobytes())
        return content.hexdigest()[:16]

    def in_order(self) -> Iterator[Batch]:
        """Yield every text once, short ones first."""
        for width, rows in self.buckets:
            for part in self._parts(rows):
                yield self._batch(width, part)

    def shuffled(self, seed: int, step: int) -> Batch:
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

    def _batch(self, width: int, rows: np.ndarray) -> Batch:
        """Return the rows as one batch, filled up to the batch size; this process makes its own of them."""
        here = devices.rows_here(self.batch_size)
        weights = (np.arange(self.batch_size) < len(rows)).astype(np.float32)[here]
        rows = rows[here]
        missing = len(weights) - len(rows)
        tokens = np.pad(self.tokens[rows, :width], ((0, missing), (0, 0)), constant_values=PADDING)
        lengths = np.pad(self.lengths[rows], (0, missing))
        mask = np.arange(width) < lengths[:, None]
        return devices.batch_of(Batch(tokens, mask, np.pad(self.labels[rows], (0, missing)), weights))  # type: ignore[arg-type]
