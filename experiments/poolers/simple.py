"""Poolers without parameters or options: mean, maximum, scaled sum, first and last state."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.layers.masked import masked_mean, zero_padding


@dataclasses.dataclass(frozen=True)
class SimpleOptions:
    """This pooler has no options."""


class Simple(nnx.Module):
    """A pooler without options; its vectors have the size of the states."""

    Options: ClassVar[type] = SimpleOptions

    def __init__(self, options: SimpleOptions, features: int, *, rngs: nnx.Rngs):
        self.features = features


class Mean(Simple):
    """r = sum_i h_i / n over the n real tokens; a text without tokens gives 0."""

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the mean."""
        return masked_mean(states, mask), {}


class Max(Simple):
    """r = max_i h_i; a text without tokens gives 0."""

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the maximum."""
        # The derivative of jnp.max divides by the number of states that equal the maximum. It can be 0: XLA may compute
        # the states anew for the comparison, and round otherwise.
        where = jnp.where(mask[..., None], states, -jnp.inf).argmax(axis=1, keepdims=True)
        largest = jnp.take_along_axis(zero_padding(states, mask), where, axis=1)[:, 0]
        return largest, {}


class SumSqrt(Simple):
    """r = sum_i h_i / sqrt(n) over the n real tokens; a text without tokens gives 0."""

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the scaled sum."""
        count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        return zero_padding(states, mask).sum(axis=1) / jnp.sqrt(count), {}


class First(Simple):
    """r = h_1; a text without tokens gives 0."""

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the state of the first token."""
        first = jnp.argmax(mask, axis=1)[:, None, None]
        return jnp.take_along_axis(zero_padding(states, mask), first, axis=1)[:, 0], {}


class Last(Simple):
    """r = h_n; a text without tokens gives 0. The backward half of a bidirectional state has seen one word there."""

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the state of the last token."""
        last = (mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1))[:, None, None]
        return jnp.take_along_axis(zero_padding(states, mask), last, axis=1)[:, 0], {}
