"""Mean of the states of the real tokens."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.contracts import Intermediates


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
        count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        return jnp.where(mask[..., None], states, 0).sum(axis=1) / count, {}
