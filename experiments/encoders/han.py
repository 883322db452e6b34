"""Hierarchical attention, after Yang et al. (NAACL 2016): words make sentence vectors, sentences make states."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Encoder, Pooler, Words
from experiments.base.errors import UsageError, unknown
from experiments.base.options import Interval
from experiments.layers.tier import Tier
from experiments.layers.words import WordOptions


@dataclasses.dataclass(frozen=True)
class HANOptions(WordOptions):
    """Word vectors, an encoder and a pooler over the words of a sentence, an encoder over the sentences of a text.

    The defaults are those of Yang et al., but for the optimiser.
    """

    reads_sentences: ClassVar[bool] = True
    """The encoder reads batches of sentences."""
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


class HAN(nnx.Module):
    """One state a sentence, from all sentences of the text; with attention at both levels this is Yang's model."""

    Options: ClassVar[type] = HANOptions
    causal: ClassVar[bool] = False
    encoders: ClassVar[Mapping[str, type[Encoder]]]
    poolers: ClassVar[Mapping[str, type[Pooler]]]
    """The tables that the parts come from."""

    def __init__(self, options: HANOptions, words: Words, *, rngs: nnx.Rngs):
        encoder = self._encoder(options.word_encoder, options, words, rngs)
        if options.word_pooler not in self.poolers:
            raise unknown("word pooler", options.word_pooler, self.poolers)
        row = self.poolers[options.word_pooler]
        pooler = row(row.Options(), encoder.features, rngs=rngs)
        self.sentences = self._encoder(options.sentence_encoder, options, Tier(encoder, pooler), rngs)
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
        self, tokens: Int[Array, "B S W"], mask: Bool[Array, "B S W"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """Return the state of every sentence."""
        return self.sentences(tokens, mask.any(axis=-1), rngs)
