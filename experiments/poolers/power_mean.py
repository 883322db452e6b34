"""Generalised mean with a fixed or trainable exponent: GeM of Radenovic et al. (TPAMI 2019), with a mask."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from flax import nnx

from experiments.base.options import Interval
from experiments.layers.norms import Norm, NormOptions


@dataclasses.dataclass(frozen=True)
class PowerMeanOptions(NormOptions):
    """The power mean: all tokens weigh the same."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 3.0
    """The exponent at the start."""
    per: Literal["layer", "feature"] = "layer"
    """Whether one p serves the layer, or each feature has its own."""


class PowerMean(Norm):
    """r = [sum_i h_i^p / n]^(1/p) over the n real tokens; a text without tokens gives 0."""

    Options: ClassVar[type] = PowerMeanOptions

    def __init__(self, options: PowerMeanOptions, features: int, *, rngs: nnx.Rngs):
        super().__init__(options, features, rngs=rngs, score=None)
