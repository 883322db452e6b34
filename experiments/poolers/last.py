"""State of the last real token: what a recurrent encoder holds when it has read a text."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Intermediates
from experiments.layers.words import zero_padding


@dataclasses.dataclass(frozen=True)
class LastOptions:
    """The last token has no options."""


class Last(nnx.Module):
    """r = h_n; a text without tokens gives 0. The backward half of a bidirectional state has seen one word there."""

    Options: ClassVar[type] = LastOptions

    def __init__(self, options: LastOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the state of the last token."""
        last = (mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1))[:, None, None]
        return jnp.take_along_axis(zero_padding(states, mask), last, axis=1)[:, 0], {}
