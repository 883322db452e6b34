"""Regression: a number a text, by the squared error of a linear function of the pooled vector."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float
from scipy import stats

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.layers.head import Head, HeadOptions
from experiments.layers.text_model import TextModel


class Ranked(NamedTuple):
    """Predictions and truths of all texts, for a correlation of ranks is no sum over batches."""

    predictions: Float[Array, " B"]
    targets: Float[Array, " B"]
    weights: Float[Array, " B"]

    def __add__(self, other: "Ranked") -> "Ranked":  # type: ignore[override]
        return Ranked(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))  # type: ignore[arg-type]

    def compute(self) -> dict[str, float]:
        """Return the mean squared error, and Spearman's correlation: 0 where either side is constant."""
        real = np.asarray(self.weights) > 0
        predictions, targets = (np.asarray(side, np.float64)[real] for side in (self.predictions, self.targets))
        varies = len(predictions) > 1 and np.ptp(predictions) > 0 and np.ptp(targets) > 0
        spearman = float(stats.spearmanr(predictions, targets).statistic) if varies else 0.0
        return {"mse": float(np.mean((predictions - targets) ** 2)), "spearman": spearman}


class Regress(TextModel):
    """Encoder -> pooler -> linear layer, in units of the standard deviation of the training split around its mean."""

    Options: ClassVar[type] = HeadOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "numbers")
    chosen_by: ClassVar[tuple[str, str]] = ("mse", "min")
    shown: ClassVar[dict[str, str]] = {"mse": "mean squared error", "spearman": "Spearman"}

    def __init__(self, options: HeadOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.head = Head(options, self.pooler.features, 1, rngs=rngs)
        self.mean, self.scale = sizes["mean"], sizes["scale"]

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs and `numbers` [B], in the units of the data."""
        standardised = self.head(outputs["pooled"].astype(jnp.float32), rngs)[:, 0]
        return {**outputs, "numbers": self.mean + self.scale * standardised}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the squared error in units of the variance of the training split."""
        errors = jnp.square((outputs["numbers"] - batch.targets) / self.scale)
        return {"squared_error": Mean.of(errors, batch.weights)}

    def metrics(self, outputs: Outputs, batch: Batch) -> Ranked:
        """Return what the mean squared error and Spearman's correlation are computed from."""
        return Ranked(outputs["numbers"], batch.targets, batch.weights)

    def predict(self, outputs: Outputs) -> Float[Array, " B"]:
        """Return the numbers."""
        return outputs["numbers"]

    def records(self, predictions: Float[np.ndarray, " B"], codec: Any) -> list[dict[str, Any]]:
        """Return the number of every text."""
        return [{"number": float(number)} for number in predictions]
