"""Mean of the states of the real tokens."""

import dataclasses
from typing import ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Intermediates
from experiments.layers.words import masked_mean


@dataclasses.dataclass(frozen=True)
class MeanOptions:
    """The mean has no options."""


class Mean(nnx.Module):
    """r = sum_i h_i / n over the n real tokens; a text without tokens gives 0."""

    Options: ClassVar[type] = MeanOptions

    def __init__(self, options: MeanOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the mean."""
        return masked_mean(states, mask), {}
