"""State of the first real token."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Intermediates
from experiments.layers.words import zero_padding


@dataclasses.dataclass(frozen=True)
class FirstOptions:
    """The first token has no options."""


class First(nnx.Module):
    """r = h_1; a text without tokens gives 0."""

    Options: ClassVar[type] = FirstOptions

    def __init__(self, options: FirstOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the state of the first token."""
        first = jnp.argmax(mask, axis=1)[:, None, None]
        return jnp.take_along_axis(zero_padding(states, mask), first, axis=1)[:, 0], {}
