"""What the poolers with a power mean share: one `lnpool.nn.LearnedNormPool`, shown with its attention and exponent."""

import dataclasses
from typing import Annotated, Any, Literal

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.contracts import Intermediates
from experiments.options import Interval


@dataclasses.dataclass(frozen=True)
class NormOptions:
    """A power mean of limited states."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 2.0
    """The exponent at the start."""
    exponent: Literal["softplus", "bounded", "raw", "fixed"] = "softplus"
    """How p is parametrised; softplus keeps p > 1, fixed does not train it."""
    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers; abs limits nothing."""


class Norm(nnx.Module):
    """A pooler around `pool`, a `LearnedNormPool` that the subclass makes."""

    pool: Any
    features: int

    @property
    def p(self) -> Array:
        """The exponent: one number, or one a head or a feature."""
        return self.pool.p

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B D"], Intermediates]:
        """Return the pooled states, the attention and the exponent."""
        pooled, attention = self.pool(states, mask=mask, return_weights=True)
        return pooled, {"attention": attention, "p": self.p}
