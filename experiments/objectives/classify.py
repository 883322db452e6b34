"""Classification: one class a text, by the softmax cross entropy of a linear layer on the pooled vector."""

from experiments.layers.classifier import Classifier


class Classify(Classifier):
    """Encoder -> pooler -> linear layer -> softmax."""
