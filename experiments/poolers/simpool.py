"""Attention from the mean state, then a power mean with a fixed exponent, after SimPool (Psomas et al., ICCV 2023).

States become non-negative by a scale limit, where the paper subtracts the smallest one; its layer norm is left out.
"""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool
from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import detach, masked_mean, zero_padding


@dataclasses.dataclass(frozen=True)
class SimPoolOptions:
    """Attention-weighted power mean with a fixed exponent."""

    p: Annotated[float, Interval("[-64, 64]")] = 2.0
    """The exponent."""
    hidden: Annotated[int, Interval("[1, 4096]")] = 64
    """Size of the space in which states meet the query; half of that of additive attention makes about as many."""
    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers."""


class SimPool(nnx.Module):
    """r = [sum_i a_i h_i^p]^(1/p) with a = softmax(W_q mean(h) . W_k h_i / sqrt(K)); a text without tokens gives 0."""

    Options: ClassVar[type] = SimPoolOptions
    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: SimPoolOptions, features: int, *, rngs: nnx.Rngs):
        self.query = nnx.Linear(features, options.hidden, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(features, options.hidden, use_bias=False, rngs=rngs)
        self.p = options.p
        self.scale_limit = options.scale_limit
        self.features = features

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the weighted power mean and its weights."""
        query, keys = self.query(masked_mean(states, mask)), self.key(zero_padding(states, mask))
        scores = detach(jnp.einsum("bk,btk->bt", query, keys) / jnp.sqrt(query.shape[1]), self.detached)
        # The attention stays out of the power, as in the paper.
        pooled = lnpool.pool(states, scores, self.p, mask=mask, scale_limit=self.scale_limit, sharpen=False)
        return pooled, {"attention": lnpool.attention_weights(scores, mask=mask)}
