"""The encoder of all-MiniLM-L6-v2, a small BERT (Devlin et al. 2019; Wang et al. 2020), with its pretrained numbers.

Each layer norm comes after its block, the activation is the exact GELU, and every vector of words is summed with that
of its place. The model was trained to compare sentences by the cosine of the mean of its states (Reimers and Gurevych
2019), so of all poolings the mean has an advantage.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Words
from experiments.base.errors import UsageError
from experiments.base.options import Interval
from experiments.data.pretrained import Pretrained
from experiments.layers.masked import dropout
from experiments.layers.words import VectorOptions, WordEmbedding, freeze

EPSILON = 1e-12
SEGMENTS = 2
"""Kinds of segment that the model tells apart; a text is one segment, of the first kind."""


@dataclasses.dataclass(frozen=True)
class MiniLMOptions(VectorOptions):
    """A pretrained encoder of word pieces, kept as it is unless --encode.no-frozen."""

    suggests: ClassVar[Mapping[str, Any]] = {"data": {"tokens": "minilm"}, "optim": {"encoder_multiplier": 0.01}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    vectors: str = "minilm"
    """Where all its numbers start: minilm (of its package), random, or a source of word vectors alone."""
    frozen: bool = True
    """Keep the encoder as it starts, rather than train it: the states of a text are computed once."""
    word_dropout: Annotated[float, Interval("[0, 1)")] = 0.0
    """Word dropout: share of pieces that training replaces by the unknown word; none where the encoder is frozen."""
    dropout: Annotated[float, Interval("[0, 1)")] = 0.1
    """Dropout rate of the word vectors and after each half of a block; none where the encoder is frozen."""
    features: Annotated[int, Interval("[1, 4096]")] = 384
    """Size of a word vector and of a state."""
    layers: Annotated[int, Interval("[1, 64]")] = 6
    """Number of blocks; of a pretrained encoder the first ones."""
    heads: Annotated[int, Interval("[1, 64]")] = 12
    """Number of attention heads; it divides the features."""
    hidden: Annotated[int, Interval("[1, 16384]")] = 1536
    """Size of the feed-forward layer in a block."""
    positions: Annotated[int, Interval("[1, 65536]")] = 512
    """Places that have a vector: the largest number of tokens of a text."""


class Block(nnx.Module):
    """Self-attention over the real tokens, then a feed-forward layer; each is added to its input, then normalised."""

    def __init__(self, options: MiniLMOptions, *, rngs: nnx.Rngs):
        features = options.features
        self.inputs = nnx.Linear(features, 3 * features, rngs=rngs)
        self.outputs = nnx.Linear(features, features, rngs=rngs)
        self.attention_norm = _norm(features, rngs)
        self.widen = nnx.Linear(features, options.hidden, rngs=rngs)
        self.narrow = nnx.Linear(options.hidden, features, rngs=rngs)
        self.feed_norm = _norm(features, rngs)
        self.heads, self.dropout = options.heads, options.dropout

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None
    ) -> Float[Array, "B T D"]:
        """Return the states after the block."""
        B, T, D = states.shape
        heads = self.inputs(states).reshape(B, T, 3, self.heads, -1)
        # Where a text has no token, JAX attends to all alike: finite, and every state is padding.
        read = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2], mask=mask[:, None, None])
        states = self.attention_norm(states + dropout(self.outputs(read.reshape(B, T, D)), self.dropout, rngs))
        fed = self.narrow(jax.nn.gelu(self.widen(states), approximate=False))
        return self.feed_norm(states + dropout(fed, self.dropout, rngs))

    def load(self, pretrained: Pretrained, name: str) -> None:
        """Set the numbers to those of a layer of the model; `name` begins their names."""
        features = self.outputs.in_features
        for_heads = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        parts = [_linear(pretrained, part, features, features) for part in for_heads]
        _set(self.inputs, {key: np.concatenate([part[key] for part in parts], axis=-1) for key in parts[0]})
        _set(self.outputs, _linear(pretrained, f"{name}.attention.output.dense", features, features))
        _load_norm(self.attention_norm, pretrained, f"{name}.attention.output.LayerNorm")
        hidden = self.widen.out_features
        _set(self.widen, _linear(pretrained, f"{name}.intermediate.dense", features, hidden))
        _set(self.narrow, _linear(pretrained, f"{name}.output.dense", hidden, features))
        _load_norm(self.feed_norm, pretrained, f"{name}.output.LayerNorm")


class MiniLM(nnx.Module):
    """One state a token, from all tokens of the text."""

    Options: ClassVar[type] = MiniLMOptions
    causal: ClassVar[bool] = False
    pretrained: ClassVar[str] = "minilm"

    def __init__(self, options: MiniLMOptions, words: Words, *, rngs: nnx.Rngs):
        if words.features != options.features or options.features % options.heads:
            raise ValueError(f"heads {options.heads} must divide the features {words.features}")
        self.words = words
        self.features = words.features
        initial = nnx.initializers.normal(0.02)
        self.positions = nnx.Param(initial(rngs.params(), (options.positions, self.features)))
        self.norm = _norm(self.features, rngs)
        self.blocks = nnx.List(Block(options, rngs=rngs) for _ in range(options.layers))
        self.dropout = options.dropout
        self.fixed = options.frozen
        if options.frozen:
            freeze(self)

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Return the state of every token after the last block."""
        places = len(self.positions[...])
        if tokens.shape[1] > places:
            raise UsageError(f"the encoder has {places} places, not {tokens.shape[1]}: give a smaller --data.max-len.")
        rngs = None if self.fixed else rngs
        states = self.norm(self.words(tokens, rngs) + self.positions[...][: tokens.shape[1]])
        states = dropout(states, self.dropout, rngs)
        for block in self.blocks:
            states = block(states, mask, rngs)
        return states, mask

    def load(self, pretrained: Pretrained) -> None:
        """Set all numbers to those of the model, whose vocabulary must be that of the word vectors.

        Raises:
            DataError: the model has other sizes; the message names the array.
        """
        assert isinstance(self.words, WordEmbedding)
        rows = len(self.words.table.embedding[...])
        self.words.table.embedding[...] = jnp.asarray(pretrained.word_vectors(rows, self.features))
        places = len(self.positions[...])
        segments = pretrained.take("embeddings.token_type_embeddings.weight", SEGMENTS, self.features)
        positions = pretrained.take("embeddings.position_embeddings.weight", places, self.features)
        self.positions[...] = jnp.asarray(positions + segments[0])
        _load_norm(self.norm, pretrained, "embeddings.LayerNorm")
        for number, block in enumerate(self.blocks):
            block.load(pretrained, f"encoder.layer.{number}")


def _norm(features: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(features, epsilon=EPSILON, use_fast_variance=False, rngs=rngs)


def _linear(pretrained: Pretrained, name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    """Return kernel [I O] and bias; the model has the kernel the other way round."""
    kernel, bias = pretrained.take(f"{name}.weight", outputs, inputs), pretrained.take(f"{name}.bias", outputs)
    return {"kernel": kernel.T, "bias": bias}


def _load_norm(norm: nnx.LayerNorm, pretrained: Pretrained, name: str) -> None:
    scale, bias = (pretrained.take(f"{name}.{part}", norm.num_features) for part in ("weight", "bias"))
    _set(norm, {"scale": scale, "bias": bias})


def _set(module: nnx.Module, values: Mapping[str, np.ndarray]) -> None:
    for name, value in values.items():
        getattr(module, name)[...] = jnp.asarray(value)
