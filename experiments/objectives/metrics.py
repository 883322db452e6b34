"""Metrics as mergeable sums."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from experiments.objectives.losses import cross_entropy


class Classification(NamedTuple):
    """Sums over classified examples: `confusion[truth, prediction]` and the loss."""

    confusion: Float[Array, "C C"]
    loss: Float[Array, ""]

    @classmethod
    def of(cls, logits: Float[Array, "B C"], labels: Int[Array, " B"], weights: Float[Array, " B"]) -> "Classification":
        """Return the sums of one batch."""
        classes = logits.shape[-1]
        confusion = jnp.zeros((classes, classes)).at[labels, logits.argmax(-1)].add(weights)
        return cls(confusion, (weights * cross_entropy(logits, labels)).sum())

    def __add__(self, other: "Classification") -> "Classification":  # type: ignore[override]
        return Classification(self.confusion + other.confusion, self.loss + other.loss)

    def compute(self) -> dict[str, float]:
        """Return accuracy, macro-F1 over the classes that occur in truth or prediction, and mean loss.

        F1 of a class is 2 TP / (truths + predictions), the harmonic mean of its precision and recall.
        """
        confusion = np.asarray(self.confusion, np.float64)
        hits = np.diag(confusion)
        occurrences = confusion.sum(0) + confusion.sum(1)
        seen = occurrences > 0
        count = confusion.sum()
        return {
            "accuracy": float(hits.sum() / count),
            "macro_f1": float(np.mean(2 * hits[seen] / occurrences[seen])),
            "loss": float(self.loss / count),
        }
