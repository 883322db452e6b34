"""Multi-head attention from one learned query: PMA of Lee et al. (ICML 2019), MAP of Zhai et al. (CVPR 2022).

Their feed-forward layer and residual are left out: the head of the model is what follows a pooling here.
"""

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import detach, masked_softmax, zero_padding


@dataclasses.dataclass(frozen=True)
class LatentQueryOptions:
    """Multi-head attention with a learned query."""

    heads: Annotated[int, Interval("[1, 64]")] = 4
    """Number of attention heads; it divides the features."""


class LatentQuery(nnx.Module):
    """r = W_o [sum_i a_ik W_v h_i]_k with a_k = softmax(q_k . W_k h_i / sqrt(D/H)); a text without tokens gives 0."""

    Options: ClassVar[type] = LatentQueryOptions
    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: LatentQueryOptions, features: int, *, rngs: nnx.Rngs):
        if features % options.heads:
            raise ValueError(f"heads {options.heads} must divide the features {features}")
        self.query = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (options.heads, features // options.heads)))
        self.key = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.features = features

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the projected weighted means of the heads, and the weights."""
        states = zero_padding(states, mask)
        query = self.query[...]
        by_head = (*mask.shape, *query.shape)
        scores = jnp.einsum("bthk,hk->bth", self.key(states).reshape(by_head), query) / jnp.sqrt(query.shape[1])
        weights = detach(masked_softmax(scores, mask), self.detached)
        pooled = jnp.einsum("bth,bthk->bhk", weights, self.value(states).reshape(by_head))
        return self.out(pooled.reshape(-1, self.features)), {"attention": weights}
