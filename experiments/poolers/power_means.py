"""Several power means side by side, after Rueckle et al., "Concatenated Power Mean Word Embeddings" (2018)."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool
from experiments.base import devices
from experiments.base.contracts import Intermediates

EXPONENTS = (-jnp.inf, 1.0, 2.0, 3.0, jnp.inf)


@dataclasses.dataclass(frozen=True)
class PowerMeansOptions:
    """Smallest state, means with the exponents 1, 2 and 3, and largest state."""

    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers; the paper takes complex powers."""


class PowerMeans(nnx.Module):
    """r = [r_p for p in (-inf, 1, 2, 3, inf)] with r_p = [sum_i h_i^p / n]^(1/p); a text without tokens gives 0."""

    Options: ClassVar[type] = PowerMeansOptions

    def __init__(self, options: PowerMeansOptions, features: int, *, rngs: nnx.Rngs):
        self.scale_limit = options.scale_limit
        self.features = len(EXPONENTS) * features

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B E"], Intermediates]:
        """Return the means, one block of features an exponent."""

        def pool(_: None, states: Array, mask: Array) -> Array:
            means = [lnpool.pool(states, p=p, mask=mask, scale_limit=self.scale_limit) for p in EXPONENTS]
            return jnp.concatenate(means, axis=1)

        return devices.by_rows(pool, None, states, mask), {}
