"""An objective from outside the package: a margin between classes, small pooled vectors, and two logged numbers.

Run as a program, it trains with this objective: `python -m tests.harness.outside --objective margin ...`.
"""

import dataclasses
import sys
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Last, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers.text_model import TextModel
from experiments.objectives import OBJECTIVES
from experiments.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class MarginOptions:
    """A linear layer trained by a margin."""

    margin: Annotated[float, Interval("(0, 100]")] = 1.0
    """How far the right class should be ahead."""
    penalty: Annotated[float, Interval("[0, 100]")] = 0.01
    """Weight of the squared norm of the pooled vectors."""


class Errors(NamedTuple):
    wrong: Float[Array, ""]
    texts: Float[Array, ""]

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.wrong + other.wrong, self.texts + other.texts)

    def compute(self) -> dict[str, float]:
        return {"error_rate": float(self.wrong / self.texts)}


class Margin(TextModel):
    """max(0, margin + best wrong score - right score), and a small pooled vector."""

    Options: ClassVar[type] = MarginOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "classes")
    chosen_by: ClassVar[tuple[str, str]] = ("error_rate", "min")
    shown: ClassVar[dict[str, str]] = {"error_rate": "share of errors"}

    def __init__(self, options: MarginOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.linear = nnx.Linear(self.pooler.features, int(sizes["classes"]), rngs=rngs)
        self.margin, self.penalty = options.margin, options.penalty

    @property
    def term_weights(self) -> dict[str, float]:
        return {"size": self.penalty}

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = self.read(batch, rngs)
        return {**outputs, "scores": self.linear(outputs["pooled"])}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        right = jax.nn.one_hot(batch.targets, outputs["scores"].shape[-1]) > 0
        score = jnp.where(right, outputs["scores"], 0).sum(axis=-1)
        other = jnp.where(right, -jnp.inf, outputs["scores"]).max(axis=-1)
        size = jnp.square(outputs["pooled"]).sum(axis=-1)
        hinge = jnp.maximum(0, self.margin + other - score)
        return {"hinge": Mean.of(hinge, batch.weights), "size": Mean.of(size, batch.weights)}

    def scalars(self, outputs: Outputs, batch: Batch) -> dict[str, Mean | Last]:
        highest = Mean.of(outputs["scores"].max(axis=-1), batch.weights)
        return {"highest_score": highest, "weight_norm": Last(jnp.linalg.norm(self.linear.kernel[...]))}

    def metrics(self, outputs: Outputs, batch: Batch) -> Errors:
        wrong = outputs["scores"].argmax(axis=-1) != batch.targets
        return Errors((batch.weights * wrong).sum(), batch.weights.sum())

    def predict(self, outputs: Outputs) -> Array:
        return outputs["scores"].argmax(axis=-1)

    def records(self, predictions: Any, codec: Any) -> list[dict[str, Any]]:
        return [{"label": codec.targets.names[index]} for index in predictions]


if __name__ == "__main__":
    from experiments.train import main
    from tests.harness.conftest import Toy

    OBJECTIVES["margin"], TASKS["toy"] = Margin, Toy
    sys.exit(main())
