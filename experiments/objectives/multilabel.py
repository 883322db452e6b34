"""Multi-label classification: any number of tags a text, each by its own logistic regression on the pooled vector."""

import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers.head import Head, HeadOptions
from experiments.layers.text_model import TextModel


@dataclasses.dataclass(frozen=True)
class MultilabelOptions(HeadOptions):
    """Dropout, one linear layer, and the probability from which a tag is given."""

    threshold: Annotated[float, Interval("(0, 1)")] = 0.5
    """A text gets the tags whose probability is above this."""


class TagCounts(NamedTuple):
    """Counts of texts, tag by tag: with the tag in truth and prediction, in the truth, in the prediction."""

    hits: Float[Array, " C"]
    truths: Float[Array, " C"]
    predictions: Float[Array, " C"]

    def __add__(self, other: "TagCounts") -> "TagCounts":  # type: ignore[override]
        return TagCounts(*(one + two for one, two in zip(self, other, strict=True)))

    def compute(self) -> dict[str, float]:
        """Return micro-F1 over all tags, and macro-F1 over the tags that occur in truth or prediction."""
        hits, truths, predictions = (np.asarray(counts, np.float64) for counts in self)
        occurrences = truths + predictions
        seen = occurrences > 0
        micro = 2 * hits.sum() / occurrences.sum() if seen.any() else 0.0
        macro = np.mean(2 * hits[seen] / occurrences[seen]) if seen.any() else 0.0
        return {"micro_f1": float(micro), "macro_f1": float(macro)}


class Multilabel(TextModel):
    """Encoder -> pooler -> linear layer -> a sigmoid a tag."""

    Options: ClassVar[type] = MultilabelOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "tags")
    chosen_by: ClassVar[tuple[str, str]] = ("micro_f1", "max")
    shown: ClassVar[dict[str, str]] = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}
    shares: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1")

    def __init__(self, options: MultilabelOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.head = Head(options, self.pooler.features, int(sizes["tags"]), rngs=rngs)
        self.threshold = options.threshold

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs and `logits` [B C], one a tag."""
        return {**outputs, "logits": self.head(outputs["pooled"].astype(jnp.float32), rngs)}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the binary cross entropy, summed over the tags of a text."""
        losses = optax.sigmoid_binary_cross_entropy(outputs["logits"], batch.targets).sum(axis=-1)
        return {"cross_entropy": Mean.of(losses, batch.weights)}

    def metrics(self, outputs: Outputs, batch: Batch) -> TagCounts:
        """Return the counts behind both F1 scores."""
        given = (self.predict(outputs) > self.threshold).astype(jnp.float32)
        weights = batch.weights[:, None]
        counts = (given * batch.targets, batch.targets, given)
        return TagCounts(*((weights * each).sum(axis=0) for each in counts))

    def predict(self, outputs: Outputs) -> Float[Array, "B C"]:
        """Return the probability of every tag."""
        return jax.nn.sigmoid(outputs["logits"])

    def records(self, predictions: Float[np.ndarray, "B C"], codec: Any) -> list[dict[str, Any]]:
        """Return the tags of every text with their probabilities, the most probable first."""
        found = []
        for row in predictions:
            above = [index for index in np.argsort(-row, kind="stable") if row[index] > self.threshold]
            found.append({"tags": {codec.targets.names[index]: float(row[index]) for index in above}})
        return found
