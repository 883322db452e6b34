"""What the poolers with a power mean share: one `lnpool.nn.LearnedNormPool`, shown with its attention and exponent."""

import dataclasses
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool
import lnpool.nn
from experiments.base import devices
from experiments.base.contracts import Intermediates
from experiments.base.options import Interval


@dataclasses.dataclass(frozen=True)
class NormOptions:
    """A power mean of limited states."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 2.0
    """The exponent at the start."""
    exponent: Literal["softplus", "bounded", "raw", "fixed"] = "softplus"
    """How p is parametrised; softplus keeps p > 1, fixed does not train it."""
    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers; abs limits nothing."""
    centre: bool = True
    """Whether the result of neutral states, x = 0, is subtracted (1 with tanh): the classifier reads signed numbers."""


class Norm(nnx.Module):
    """A pooler around a `LearnedNormPool` that is made from its options; a text without tokens gives 0."""

    def __init__(self, options: NormOptions, features: int, *, rngs: nnx.Rngs, **more: Any):
        chosen = dataclasses.asdict(options) | more
        self.centre, self.scale_limit = chosen.pop("centre"), options.scale_limit
        self.pool = lnpool.nn.LearnedNormPool(features, rngs=rngs, **chosen)
        self.features = features

    @property
    def p(self) -> Array:
        """The exponent: one number, or one a head or a feature."""
        return self.pool.p

    def mean(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T *H"]]:
        """Return the power mean of the limited states, and the attention."""

        def pool(pool: Any, states: Array, mask: Array) -> tuple[Array, Array]:
            pooled, attention = pool(states, mask=mask, return_weights=True)
            return pooled, attention

        return devices.by_rows(pool, self.pool, states, mask)

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the pooled states, the attention and the exponent."""
        pooled, attention = self.mean(states, mask)
        if self.centre:
            neutral = jnp.exp(lnpool.scale_limit(jnp.zeros((), pooled.dtype), self.scale_limit))
            pooled = jnp.where(mask.any(axis=1, keepdims=True), pooled - neutral, 0)
        return pooled, {"attention": attention, "p": self.p}
