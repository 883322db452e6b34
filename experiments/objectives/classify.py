"""Classification: one class a text, by the softmax cross entropy of a linear layer on the pooled vector."""

from typing import ClassVar

from experiments.base.contracts import Batch, Mean, Outputs
from experiments.layers.classifier import Classifier, Confusion, confusion
from experiments.layers.head import HeadOptions
from experiments.layers.losses import cross_entropy


class Classify(Classifier):
    """Encoder -> pooler -> linear layer -> softmax."""

    Options: ClassVar[type] = HeadOptions
    chosen_by: ClassVar[tuple[str, str]] = ("accuracy", "max")
    shown: ClassVar[dict[str, str]] = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
    shares: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the cross entropy."""
        return {"cross_entropy": Mean.of(cross_entropy(outputs["logits"], batch.targets), batch.weights)}

    def metrics(self, outputs: Outputs, batch: Batch) -> Confusion:
        """Return the counts behind accuracy and macro-F1."""
        return confusion(outputs, batch)
