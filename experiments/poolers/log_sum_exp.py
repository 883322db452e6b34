"""Log-sum-exp with a learned sharpness: the mean at 0, the maximum at infinity, for states of any sign."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import zero_padding


@dataclasses.dataclass(frozen=True)
class LogSumExpOptions:
    """A smooth maximum."""

    sharpness: Annotated[float, Interval("(0, 1000]")] = 1.0
    """The inverse temperature t at the start."""


class LogSumExp(nnx.Module):
    """r = log(sum_i exp(t h_i) / n) / t with a trainable t > 0; a text without tokens gives 0."""

    Options: ClassVar[type] = LogSumExpOptions

    def __init__(self, options: LogSumExpOptions, features: int, *, rngs: nnx.Rngs):
        self.log_sharpness = nnx.Param(jnp.log(jnp.float32(options.sharpness)))
        self.features = features

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the smooth maximum and its sharpness."""
        # A text without tokens counts as zeros, so that no logarithm of 0 is taken: their smooth maximum is 0.
        real = mask | ~mask.any(axis=1, keepdims=True)
        sharpness = jnp.exp(self.log_sharpness[...])
        powers = jnp.where(real[..., None], sharpness * zero_padding(states, mask), -jnp.inf)
        total = jax.nn.logsumexp(powers, axis=1)
        return (total - jnp.log(real.sum(axis=1, keepdims=True))) / sharpness, {"sharpness": sharpness}
