"""Learned-norm pooling by the formula as printed in Wu et al. (ACL 2020): what its re-formulation is compared with."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool.nn
from experiments.layers.norms import Norm, NormOptions
from experiments.layers.words import masked_softmax


@dataclasses.dataclass(frozen=True)
class NaiveNormOptions(NormOptions):
    """r = [sum_i (a_i h_i)^p / sum_i a_i^p]^(1/p) by powers of numbers."""


class NaiveNorm(Norm):
    """The parameters of `learned_norm`, without its re-formulation: a_i^p soon falls below what float32 holds.

    A text without tokens gives 0. What is not finite otherwise is left so, because that is what is measured.
    """

    Options: ClassVar[type] = NaiveNormOptions

    def __init__(self, options: NaiveNormOptions, features: int, *, rngs: nnx.Rngs):
        super().__init__(options, features, rngs=rngs, score=None)
        self.scorer = lnpool.nn.AttentionScores(features, rngs=rngs)

    def mean(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T"]]:
        """Return the power mean of the limited states, and the attention."""
        some = mask.any(axis=1, keepdims=True)
        states = jnp.where(mask[..., None], states, 1)  # padding has weight 0; its powers must have derivatives
        attention = masked_softmax(self.scorer(states, mask=mask), mask)
        a, p = jnp.where(some, attention, 1)[..., None], self.pool.p
        h = jnp.exp(lnpool.scale_limit(states, self.scale_limit))
        pooled = (jnp.sum((a * h) ** p, axis=1) / jnp.sum(a**p, axis=1)) ** (1 / p)
        return jnp.where(some, pooled, 0), attention
