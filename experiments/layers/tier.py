"""A tier: an encoder and a pooler that make one vector of every sentence, review or other row of tokens."""

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Encoder, Pooler
from experiments.data.text import PADDING


class Tier(nnx.Module):
    """What `Words` are to an encoder of words, to an encoder of the next tier: a vector for each row of tokens.

    A row has one axis of tokens, or as many as the encoder reads: with 2, it is a review, the words [S W] of sentences.
    """

    def __init__(self, encoder: Encoder, pooler: Pooler, axes: int = 1):
        self.encoder = encoder
        self.pooler = pooler
        self.axes = axes
        self.features = pooler.features

    def states(
        self, tokens: Int[Array, "*S W"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "N T D"], Bool[Array, "N T"]]:
        """Return the states of every row, the rows one after another, and which of them are real."""
        rows = tokens.reshape(-1, *tokens.shape[tokens.ndim - self.axes :])
        mask = (rows != PADDING).any(axis=tuple(range(2, rows.ndim)))
        return self.encoder(rows, mask, rngs)

    def __call__(self, tokens: Int[Array, "*S W"], rngs: nnx.Rngs | None = None) -> Float[Array, "*R D"]:
        """Return the vector of every row; 0 where a row has no tokens."""
        states, mask = self.states(tokens, rngs)
        pooled, _ = self.pooler(states, mask)
        return pooled.astype(states.dtype).reshape(*tokens.shape[: tokens.ndim - self.axes], -1)
