"""Additive attention, after Bahdanau et al. (ICLR 2015) and Yang et al. (NAACL 2016)."""

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import attend, zero_padding


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """Attention by one query."""

    hidden: Annotated[int, Interval("[1, 4096]")] = 128
    """Hidden units of the additive attention."""


class Attention(nnx.Module):
    """r = sum_i a_i h_i with a = softmax(v . tanh(W h_i + b)); a text without tokens gives 0."""

    Options: ClassVar[type] = AttentionOptions
    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: AttentionOptions, features: int, *, rngs: nnx.Rngs):
        self.project = nnx.Linear(features, options.hidden, rngs=rngs)
        self.query = nnx.Linear(options.hidden, 1, use_bias=False, rngs=rngs)
        self.features = features

    def scores(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
        """Return the scores of the tokens."""
        return self.query(jnp.tanh(self.project(zero_padding(states, mask))))[..., 0]

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Float[Array, "B T"] | None = None
    ) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the weighted mean and its weights; `scores` take the place of its own."""
        return attend(self.scores(states, mask) if scores is None else scores, states, mask, self.detached)
