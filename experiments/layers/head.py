"""From the pooled vector to logits."""

import dataclasses
from typing import Annotated

from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.options import Interval
from experiments.layers.masked import dropout
from experiments.layers.normalised import LINEAR, Normalisation


@dataclasses.dataclass(frozen=True)
class DropoutOptions:
    """Dropout of the pooled vector."""

    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Dropout rate of the pooled vector."""


@dataclasses.dataclass(frozen=True)
class HeadOptions(DropoutOptions):
    """Dropout and one linear layer."""

    normalise: Normalisation = "none"
    """How its matrix is normalised: weight gives each column a learned length, spectral makes its spectral norm 1."""


class Head(nnx.Module):
    """Linear classifier on the pooled vector."""

    def __init__(self, options: HeadOptions, features: int, classes: int, *, rngs: nnx.Rngs):
        self.rate = options.dropout
        self.linear = LINEAR[options.normalise](features, classes, rngs=rngs)

    def __call__(self, pooled: Float[Array, "B D"], rngs: nnx.Rngs | None = None) -> Float[Array, "B C"]:
        """Return one logit a class."""
        return self.linear(dropout(pooled, self.rate, rngs))
