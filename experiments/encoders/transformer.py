"""Self-attention, after Vaswani et al. (2017), each layer norm before its block (Xiong et al. 2020)."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.options import Interval, added
from experiments.layers.attention import Attention, atrous, full, local, sparse
from experiments.layers.masked import dropout
from experiments.layers.words import VectorOptions


@dataclasses.dataclass(frozen=True)
class TransformerOptions(VectorOptions):
    """Word vectors with sinusoidal positions, then blocks of self-attention.

    The sizes are those of the smallest BERT of Turc et al. (2019), two blocks of 128 features; dropout is that of
    Vaswani et al.
    """

    suggests: ClassVar[Mapping[str, Any]] = {"optim": {"learning_rate": 1e-3}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    features: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of a word vector and of a state; vectors that are read bring their own."""
    layers: Annotated[int, Interval("[1, 64]")] = 2
    """Number of blocks."""
    heads: Annotated[int, Interval("[1, 64]")] = 2
    """Number of attention heads; it divides the features."""
    hidden: Annotated[int, Interval("[1, 16384]")] = 512
    """Size of the feed-forward layer in a block."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Dropout rate of the word vectors and after each half of a block."""
    attention: Annotated[Literal["full", "local", "atrous", "sparse"], added("full")] = "full"
    """Which words a word attends to: all; those near by; every rate-th one; or both of these, in one softmax."""
    window: Annotated[int, Interval("[1, 65536]"), added(16)] = 16
    """Local and sparse attention reach this many words to each side."""
    rate: Annotated[int, Interval("[1, 65536]"), added(16)] = 16
    """Dilation rate of atrous and sparse attention."""
    causal: Annotated[bool, added(False)] = False
    """No word attends to a later one, which a language model requires."""

    @property
    def attend(self) -> Attention:
        """The attention of queries, keys and values under a mask; see `experiments.layers.attention`."""
        forms: dict[str, Attention] = {
            "full": full,
            "local": partial(local, window=self.window),
            "atrous": partial(atrous, rate=self.rate),
            "sparse": partial(sparse, window=self.window, rate=self.rate),
        }
        return partial(forms[self.attention], causal=self.causal)


def sinusoids(length: int, features: int) -> Float[np.ndarray, "T D"]:
    """Return the position vectors of Vaswani et al.: sines, then cosines, of falling frequency."""
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, features, 2) / features)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :features].astype(np.float32)


class Block(nnx.Module):
    """Self-attention over real tokens, then a feed-forward layer, each added to its input."""

    def __init__(self, options: TransformerOptions, features: int, *, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(features, rngs=rngs)
        self.inputs = nnx.Linear(features, 3 * features, rngs=rngs)
        self.outputs = nnx.Linear(features, features, rngs=rngs)
        self.feed_norm = nnx.LayerNorm(features, rngs=rngs)
        self.widen = nnx.Linear(features, options.hidden, rngs=rngs)
        self.narrow = nnx.Linear(options.hidden, features, rngs=rngs)
        self.heads = options.heads
        self.attend = options.attend
        self.dropout = options.dropout

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None
    ) -> Float[Array, "B T D"]:
        """Return the states after the block."""
        B, T, D = states.shape
        heads = self.inputs(self.attention_norm(states)).reshape(B, T, 3, self.heads, -1)
        read = self.attend(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2], mask)
        states = states + dropout(self.outputs(read.reshape(B, T, D)), self.dropout, rngs)
        fed = self.narrow(jax.nn.gelu(self.widen(self.feed_norm(states))))
        return states + dropout(fed, self.dropout, rngs)


class Transformer(nnx.Module):
    """One state a token, from the words that attention reaches."""

    Options: ClassVar[type] = TransformerOptions

    def __init__(self, options: TransformerOptions, words: Words, *, rngs: nnx.Rngs):
        if words.features % options.heads:
            raise ValueError(f"heads {options.heads} must divide the features {words.features}")
        self.words = words
        self.causal = options.causal
        self.features = words.features
        self.blocks = nnx.List(Block(options, self.features, rngs=rngs) for _ in range(options.layers))
        self.norm = nnx.LayerNorm(self.features, rngs=rngs)
        self.dropout = options.dropout

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every token after the last block."""
        # Word vectors start small; the factor of the paper brings them to the size of the positions.
        words = self.words(tokens, rngs) * jnp.sqrt(self.features)
        states = dropout(words + sinusoids(tokens.shape[1], self.features).astype(words.dtype), self.dropout, rngs)
        for block in self.blocks:
            states = block(states, mask, rngs)
        return self.norm(states), mask
