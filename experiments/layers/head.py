"""From the pooled vector to logits."""

import dataclasses
from typing import Annotated

from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.options import Interval
from experiments.layers.masked import dropout


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Dropout and one linear layer."""

    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Dropout rate of the pooled vector."""


class Head(nnx.Module):
    """Linear classifier on the pooled vector."""

    def __init__(self, options: HeadOptions, features: int, classes: int, *, rngs: nnx.Rngs):
        self.rate = options.dropout
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, pooled: Float[Array, "B D"], rngs: nnx.Rngs | None = None) -> Float[Array, "B C"]:
        """Return one logit a class."""
        return self.linear(dropout(pooled, self.rate, rngs))
