"""A tier: an encoder and a pooler that make one vector of every sentence, review or other row of tokens."""

from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.base.contracts import Encoder, Pooler
from experiments.data.text import PADDING


class Tier(nnx.Module):
    """What `Words` are to an encoder of words, to an encoder of the next tier: a vector for each row of tokens."""

    def __init__(self, encoder: Encoder, pooler: Pooler):
        self.encoder = encoder
        self.pooler = pooler
        self.features = pooler.features

    def __call__(self, tokens: Int[Array, "*S W"], rngs: nnx.Rngs | None = None) -> Float[Array, "*S D"]:
        """Return the vector of every row; 0 where a row has no tokens."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        states, mask = self.encoder(rows, rows != PADDING, rngs)
        pooled, _ = self.pooler(states, mask)
        return pooled.astype(states.dtype).reshape(*tokens.shape[:-1], -1)
