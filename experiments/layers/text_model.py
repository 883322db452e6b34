"""The model of the figure: encoder -> pooler -> head."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Encoder, Intermediates, Pooler
from experiments.layers.head import Head
from experiments.layers.words import WordEmbedding


class TextClassifier(nnx.Module):
    """A mask goes with the tokens to the encoder, and one comes with the states to the pooler.

    The encoder computes in `dtype`; parameters are float32, and so is what poolers sum and all that the head does.
    """

    def __init__(self, encoder: Encoder, pooler: Pooler, head: Head, dtype: str = "float32"):
        self.encoder = encoder
        self.pooler = pooler
        self.head = head
        self.dtype = dtype

    @property
    def words(self) -> WordEmbedding:
        """The word vectors, wherever in the encoder they are."""
        return next(node for _, node in nnx.iter_graph(self) if isinstance(node, WordEmbedding))

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B C"], Intermediates]:
        """Return the logits and everything between: `states` and their `mask`, `pooled` and what the pooler shows."""
        states, mask = in_dtype(self.encoder, self.dtype)(tokens, mask, rngs)
        pooled, shown = self.pooler(states, mask)
        return self.head(pooled.astype(jnp.float32), rngs), {"states": states, "mask": mask, "pooled": pooled, **shown}


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a parameter from its key path: `pooler.pool.rho`."""
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


def is_exponent(path: tuple[Any, ...]) -> bool:
    """Tell whether a parameter is the raw exponent of a pooler; such parameters are named `rho`."""
    return leaf_name(path).split(".")[-1] == "rho"


def in_dtype(encoder: Encoder, dtype: str) -> Encoder:
    """Return an encoder that computes in a dtype: that of its parameters, but for those of a pooler inside.

    A parameter of float32 beside states of bfloat16 makes the result float32, which is what poolers are to sum.
    """
    if dtype == "float32":
        return encoder

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf if "pooler" in leaf_name(path).split(".") else leaf.astype(dtype)

    graph, state = nnx.split(encoder)
    return nnx.merge(graph, jax.tree_util.tree_map_with_path(cast, state))
