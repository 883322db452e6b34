"""Generalised mean with a fixed or trainable exponent: GeM of Radenovic et al. (TPAMI 2019), with a mask."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool.nn
from experiments.contracts import Intermediates
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class PowerMeanOptions:
    """The power mean: all tokens weigh the same."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 3.0
    """The exponent at the start."""
    exponent: Literal["softplus", "bounded", "raw", "fixed"] = "softplus"
    """How p is parametrised; softplus keeps p > 1, fixed does not train it."""
    per: Literal["layer", "feature"] = "layer"
    """Whether one p serves the layer, or each feature has its own."""
    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers."""


class PowerMean(nnx.Module):
    """r = [sum_i h_i^p / n]^(1/p) over the n real tokens; a text without tokens gives 0."""

    Options: ClassVar[type] = PowerMeanOptions

    def __init__(self, options: PowerMeanOptions, features: int, *, rngs: nnx.Rngs):
        self.pool = lnpool.nn.LearnedNormPool(features, score=None, rngs=rngs, **dataclasses.asdict(options))
        self.features = features

    @property
    def p(self) -> Array:
        """The exponent: one number, or one a feature."""
        return self.pool.p

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the power mean, its uniform weights and the exponent."""
        pooled, attention = self.pool(states, mask=mask, return_weights=True)
        return pooled, {"attention": attention, "p": self.pool.p}
