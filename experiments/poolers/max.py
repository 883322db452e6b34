"""Largest value of every feature over the real tokens."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Intermediates


@dataclasses.dataclass(frozen=True)
class MaxOptions:
    """The maximum has no options."""


class Max(nnx.Module):
    """r = max_i h_i; a text without tokens gives 0."""

    Options: ClassVar[type] = MaxOptions

    def __init__(self, options: MaxOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the maximum."""
        largest = jnp.where(mask[..., None], states, -jnp.inf).max(axis=1)
        return jnp.where(mask.any(axis=1, keepdims=True), largest, 0), {}
