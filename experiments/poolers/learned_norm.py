"""Attentive pooling with a learnable norm, after Wu et al. (ACL 2020)."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from flax import nnx

from experiments.base.options import Interval
from experiments.layers.norms import Norm, NormOptions


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


class LearnedNorm(Norm):
    """`lnpool.nn.LearnedNormPool`; shows its attention and its exponent."""

    Options: ClassVar[type] = LearnedNormOptions

    def __init__(self, options: LearnedNormOptions, features: int, *, rngs: nnx.Rngs):
        super().__init__(options, features, rngs=rngs, score=None if options.score == "none" else options.score)
