"""The model of the figure: encoder -> pooler -> head."""

from typing import Any

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.contracts import Encoder, Intermediates, Pooler
from experiments.heads import Head
from experiments.layers import WordEmbedding


class TextClassifier(nnx.Module):
    """A mask goes with the tokens to the encoder, and one comes with the states to the pooler."""

    def __init__(self, encoder: Encoder, pooler: Pooler, head: Head):
        self.encoder = encoder
        self.pooler = pooler
        self.head = head

    @property
    def words(self) -> WordEmbedding:
        """The word vectors, wherever in the encoder they are."""
        return next(node for _, node in nnx.iter_graph(self) if isinstance(node, WordEmbedding))

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B C"], Intermediates]:
        """Return the logits and everything between: `states` and their `mask`, `pooled` and what the pooler shows."""
        states, mask = self.encoder(tokens, mask, rngs)
        pooled, shown = self.pooler(states, mask)
        return self.head(pooled, rngs), {"states": states, "mask": mask, "pooled": pooled, **shown}


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a parameter from its key path: `pooler.pool.rho`."""
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


def is_exponent(path: tuple[Any, ...]) -> bool:
    """Tell whether a parameter is the raw exponent of a pooler; such parameters are named `rho`."""
    return leaf_name(path).split(".")[-1] == "rho"
