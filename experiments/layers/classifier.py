"""One class a text by a linear layer on the pooled vector: what objectives share that predict classes."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Mean, Metrics, Outputs, Parts, Sizes
from experiments.layers.head import Head, HeadOptions
from experiments.layers.losses import cross_entropy
from experiments.layers.text_model import TextModel


class Confusion(NamedTuple):
    """Counts of texts by `[truth, prediction]`."""

    counts: Float[Array, "C C"]

    def __add__(self, other: "Confusion") -> "Confusion":  # type: ignore[override]
        return Confusion(self.counts + other.counts)

    def compute(self) -> dict[str, float]:
        """Return accuracy, and macro-F1 over the classes that occur in truth or prediction.

        F1 of a class is 2 TP / (truths + predictions), the harmonic mean of its precision and recall.
        """
        counts = np.asarray(self.counts, np.float64)
        hits, occurrences = np.diag(counts), counts.sum(0) + counts.sum(1)
        seen = occurrences > 0
        f1 = 2 * hits[seen] / occurrences[seen]
        return {"accuracy": float(hits.sum() / counts.sum()), "macro_f1": float(np.mean(f1))}


def confusion(outputs: Outputs, batch: Batch) -> Confusion:
    """Return the counts of a batch."""
    classes = outputs["logits"].shape[-1]
    counts = jnp.zeros((classes, classes))
    return Confusion(counts.at[batch.targets, outputs["logits"].argmax(-1)].add(batch.weights))


class Classifier(TextModel):
    """Encoder -> pooler -> linear layer -> softmax, by cross entropy."""

    Options: ClassVar[type] = HeadOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "classes")
    chosen_by: ClassVar[tuple[str, str]] = ("accuracy", "max")
    shown: ClassVar[dict[str, str]] = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
    shares: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    def __init__(self, options: HeadOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.head = Head(options, self.pooler.features, int(sizes["classes"]), rngs=rngs)

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs and `logits` [B C]."""
        return {**outputs, "logits": self.head(outputs["pooled"].astype(jnp.float32), rngs)}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the cross entropy."""
        return {"cross_entropy": Mean.of(cross_entropy(outputs["logits"], batch.targets), batch.weights)}

    def metrics(self, outputs: Outputs, batch: Batch) -> Metrics:
        """Return the counts behind accuracy and macro-F1."""
        return confusion(outputs, batch)

    def predict(self, outputs: Outputs) -> Float[Array, "B C"]:
        """Return the probability of every class."""
        return jax.nn.softmax(outputs["logits"])

    def records(self, predictions: Float[np.ndarray, "B C"], codec: Any) -> list[dict[str, Any]]:
        """Return the most probable class and its probability."""
        best = predictions.argmax(-1)
        return [
            {"label": codec.targets.names[index], "probability": float(row[index])}
            for index, row in zip(best, predictions, strict=True)
        ]
