"""Attention by the scaled product of states and a learned query, after Luong et al. (EMNLP 2015)."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.layers.masked import attend, zero_padding


@dataclasses.dataclass(frozen=True)
class DotAttentionOptions:
    """Dot-product attention has no options."""


class DotAttention(nnx.Module):
    """r = sum_i a_i h_i with a = softmax(q . h_i / sqrt(D)); a text without tokens gives 0."""

    Options: ClassVar[type] = DotAttentionOptions
    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: DotAttentionOptions, features: int, *, rngs: nnx.Rngs):
        self.query = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (features,)))
        self.features = features

    def scores(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
        """Return the scores of the tokens."""
        return zero_padding(states, mask) @ self.query[...] / jnp.sqrt(self.features)

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Float[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the weighted mean and its weights; `scores` take the place of its own."""
        return attend(self.scores(states, mask) if scores is None else scores, states, mask, self.detached)
