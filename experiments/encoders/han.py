"""Hierarchical attention, after Yang et al. (NAACL 2016): words make sentence vectors, sentences make states."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Encoder, Pooler, Words
from experiments.base.errors import UsageError, unknown
from experiments.base.options import Interval
from experiments.data.text import PADDING, SENTENCE_END
from experiments.layers.words import WordOptions


@dataclasses.dataclass(frozen=True)
class HANOptions(WordOptions):
    """Word vectors, an encoder and a pooler over the words of a sentence, an encoder over the sentences of a text.

    The defaults are those of Yang et al., but for the optimiser.
    """

    reads_sentences: ClassVar[bool] = True
    """Whether the encoder needs the ends of sentences among the words."""
    suggests: ClassVar[Mapping[str, Any]] = {"data": {"batch_size": 64}}
    """Defaults of options that belong to others; see `experiments.run.config.default_config`."""
    embedding: Annotated[int, Interval("[1, 4096]")] = 200
    """Size of a word vector; vectors that are read bring their own."""
    word_encoder: str = "bigru"
    """What turns the words of a sentence into states; one of the names in experiments/encoders."""
    word_pooler: str = "attention"
    """What turns these states into the vector of the sentence; one of the names in experiments/poolers."""
    sentence_encoder: str = "bigru"
    """What turns the vectors of the sentences into states, which --pooler pools."""
    features: Annotated[int, Interval("[1, 2048]")] = 50
    """The option `features` of both encoders; their and the pooler's other options have their defaults."""
    shortest: Annotated[int, Interval("[1, 65536]")] = 8
    """A sentence of fewer words is read together with the next one: bounds the number of sentences."""
    longest: Annotated[int, Interval("[1, 65536]")] = 32
    """A sentence of more words is cut into pieces of this many."""


def by_sentence(
    tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], shortest: int, longest: int
) -> Int[Array, "B S W"]:
    """Return the words of every sentence, padded: S = ceil(T / min(shortest, longest)), W = min(longest, T).

    No word is lost: all sentences but the last of a text have at least `shortest` words, or `longest` if that is less.
    """
    B, T = tokens.shape
    W = min(longest, T)
    S = -(-T // min(shortest, W))
    word = mask & (tokens != SENTENCE_END)

    def step(carry: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        sentence, length = carry
        is_word, is_end = at
        full = (length >= W) & is_word | (length >= shortest) & is_end
        sentence, length = sentence + full, jnp.where(full, 0, length)
        return (sentence, length + is_word), (sentence, length)

    start = (jnp.zeros(B, jnp.int32),) * 2
    _, (sentence, place) = jax.lax.scan(step, start, (word.T, (mask & ~word).T))
    rows = jnp.arange(B)[:, None]
    where = jnp.where(word, sentence.T, S)  # S is no sentence: what is no word is dropped
    return jnp.full((B, S, W), PADDING, tokens.dtype).at[rows, where, place.T].set(tokens, mode="drop")


class SentenceVectors(nnx.Module):
    """What `Words` are to an encoder of words, to an encoder of sentences: the pooled states of the words of each."""

    def __init__(self, encoder: Encoder, pooler: Pooler):
        self.encoder = encoder
        self.pooler = pooler
        self.features = pooler.features

    def __call__(self, tokens: Int[Array, "B S W"], rngs: nnx.Rngs | None = None) -> Float[Array, "B S D"]:
        """Return the vector of every sentence; 0 where there is none."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        states, mask = self.encoder(rows, rows != PADDING, rngs)
        pooled, _ = self.pooler(states, mask)
        return pooled.astype(states.dtype).reshape(*tokens.shape[:-1], -1)


class HAN(nnx.Module):
    """One state a sentence, from all sentences of the text; with attention at both levels this is Yang's model."""

    Options: ClassVar[type] = HANOptions
    encoders: ClassVar[Mapping[str, type[Encoder]]]
    poolers: ClassVar[Mapping[str, type[Pooler]]]
    """The tables that the parts come from."""

    def __init__(self, options: HANOptions, words: Words, *, rngs: nnx.Rngs):
        encoder = self._encoder(options.word_encoder, options, words, rngs)
        if options.word_pooler not in self.poolers:
            raise unknown("word pooler", options.word_pooler, self.poolers)
        row = self.poolers[options.word_pooler]
        pooler = row(row.Options(), encoder.features, rngs=rngs)
        self.sentences = self._encoder(options.sentence_encoder, options, SentenceVectors(encoder, pooler), rngs)
        self.shortest, self.longest = options.shortest, options.longest
        self.features = self.sentences.features

    def _encoder(self, name: str, options: HANOptions, words: Words, rngs: nnx.Rngs) -> Any:
        """Return an encoder of one level, with the options that it shares with this one."""
        if name not in self.encoders:
            raise unknown("encoder of words or sentences", name, self.encoders)
        default = self.encoders[name].Options()
        if default.reads_sentences:
            raise UsageError(f"{name} reads sentences: it cannot be the encoder of words or sentences in another one.")
        own = {field.name for field in dataclasses.fields(default)} & {"features", "dropout"}
        shared = dataclasses.replace(default, **{option: getattr(options, option) for option in own})
        return self.encoders[name](shared, words, rngs=rngs)

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """Return the state of every sentence."""
        grid = by_sentence(tokens, mask, self.shortest, self.longest)
        return self.sentences(grid, (grid != PADDING).any(axis=-1), rngs)
