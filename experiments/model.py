"""The model of the figure: encoder -> pooler -> head."""

from typing import Any

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.contracts import Encoder, Intermediates, Pooler
from experiments.heads import Head


class TextClassifier(nnx.Module):
    """One mask goes through: to the encoder and to the pooler."""

    def __init__(self, encoder: Encoder, pooler: Pooler, head: Head):
        self.encoder = encoder
        self.pooler = pooler
        self.head = head

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B C"], Intermediates]:
        """Return the logits and everything between: `states`, `pooled` and what the pooler shows."""
        states = self.encoder(tokens, mask, rngs)
        pooled, shown = self.pooler(states, mask)
        return self.head(pooled, rngs), {"states": states, "pooled": pooled, **shown}


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a parameter from its key path: `pooler.pool.rho`."""
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


def is_exponent(path: tuple[Any, ...]) -> bool:
    """Tell whether a parameter is the raw exponent of a pooler; such parameters are named `rho`."""
    return leaf_name(path).split(".")[-1] == "rho"
