"""Sum of the states over the square root of their number: between the sum, which grows with a text, and the mean."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Intermediates
from experiments.layers.words import zero_padding


@dataclasses.dataclass(frozen=True)
class SumSqrtOptions:
    """The sum has no options."""


class SumSqrt(nnx.Module):
    """r = sum_i h_i / sqrt(n) over the n real tokens; a text without tokens gives 0."""

    Options: ClassVar[type] = SumSqrtOptions

    def __init__(self, options: SumSqrtOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the scaled sum."""
        count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        return zero_padding(states, mask).sum(axis=1) / jnp.sqrt(count), {}
