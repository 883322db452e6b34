"""Attentive pooling with a learnable norm, after Wu et al. (ACL 2020)."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool.nn
from experiments.contracts import Intermediates
from experiments.norms import Norm, NormOptions
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class LearnedNormOptions(NormOptions):
    """r = [sum_i softmax(p z)_i h_i^p]^(1/p) with a trainable p."""

    per: Literal["layer", "head", "feature"] = "layer"
    """Whether one p serves the layer, or each head or feature has its own."""
    heads: Annotated[int, Interval("[1, 64]")] = 1
    """Number of attention heads; it divides the features."""
    hidden: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of the space in which states meet the query."""
    score: Literal["additive", "none"] = "additive"
    """How tokens are scored; none gives all the same weight (the power mean)."""
    sharpen: bool = True
    """Whether attention lies inside the power, as in the paper."""
    centre: bool = False
    """Whether the result of neutral states, x = 0, is subtracted: 1 with tanh."""


class LearnedNorm(Norm):
    """`lnpool.nn.LearnedNormPool`; shows its attention and its exponent."""

    Options: ClassVar[type] = LearnedNormOptions

    def __init__(self, options: LearnedNormOptions, features: int, *, rngs: nnx.Rngs):
        chosen = dataclasses.asdict(options) | {"score": None if options.score == "none" else options.score}
        self.centre, self.scale_limit = chosen.pop("centre"), options.scale_limit
        self.pool = lnpool.nn.LearnedNormPool(features, rngs=rngs, **chosen)
        self.features = features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the pooled states, the attention and the exponent."""
        pooled, shown = super().__call__(states, mask)
        if self.centre:
            neutral = jnp.exp(lnpool.scale_limit(jnp.zeros((), pooled.dtype), self.scale_limit))
            pooled = jnp.where(mask.any(axis=1, keepdims=True), pooled - neutral, 0)
        return pooled, shown
