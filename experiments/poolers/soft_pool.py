"""Softmax of the states themselves as weights: SoftPool (Stergiou et al., ICCV 2021), AutoPool (McFee et al. 2018)."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import detach, masked_softmax, zero_padding


@dataclasses.dataclass(frozen=True)
class SoftPoolOptions:
    """Softmax-weighted mean with a trainable sharpness."""

    sharpness: Annotated[float, Interval("[-1000, 1000]")] = 1.0
    """The factor t at the start: 1 is SoftPool, 0 the mean and the start of AutoPool."""
    per: Literal["layer", "feature"] = "layer"
    """Whether one factor serves the layer, or each feature has its own, as in AutoPool."""


class SoftPool(nnx.Module):
    """r = sum_i a_i h_i with a = softmax(t h_i), feature by feature; a text without tokens gives 0."""

    Options: ClassVar[type] = SoftPoolOptions
    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: SoftPoolOptions, features: int, *, rngs: nnx.Rngs):
        shape = (features,) if options.per == "feature" else ()
        self.sharpness = nnx.Param(jnp.full(shape, options.sharpness, jnp.float32))
        self.features = features

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the weighted mean, and the weights of every feature."""
        states = zero_padding(states, mask)
        weights = detach(masked_softmax(self.sharpness[...] * states, mask), self.detached)
        return (weights * states).sum(axis=1), {"attention": weights, "sharpness": self.sharpness[...]}
