"""The title of a text, word by word: an encoder, a pooled vector that modulates a decoder, attention over the states.

After Su (2018, kexue.fm/archives/5861). Encoder, decoder and output share one table of word vectors. A prior lets the
words of the text be more probable than others; it is the only way in which words are copied.
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers.decoder import Decoder, Memory
from experiments.layers.head import HeadOptions
from experiments.layers.masked import dropout
from experiments.layers.search import Found, beam
from experiments.layers.text_model import TextModel
from experiments.layers.titles import END, TitleScores, present, words_of
from experiments.layers.words import UNKNOWN

FASTER = 10.0
"""Bias and prior are parameters times this, so they move so much farther in a step than other numbers. A step of Adam
is about as long as the learning rate, and the prior has far to go: most words of a title are among the few of its text.
"""


@dataclasses.dataclass(frozen=True)
class TitleOptions(HeadOptions):
    """A decoder, the prior of words of the text, and how a title is searched."""

    hidden: Annotated[int, Interval("[1, 4096]")] = 128
    """Size of the recurrent states of the decoder."""
    layers: Annotated[int, Interval("[1, 8]")] = 1
    """Recurrent layers of the decoder."""
    heads: Annotated[int, Interval("[1, 64]")] = 4
    """Heads of the attention over the states of the text; they divide the hidden size."""
    modulation: Annotated[int, Interval("[1, 4096]")] = 32
    """Hidden units between the pooled vector and a normalisation of the decoder."""
    prior: Literal["added", "halved", "none"] = "added"
    """Prior of the words of the text: added is y + s x with s = 0 at the start, halved is (y + exp(s) x + t) / 2 as in
    the original; x is 1 at words of the text, s and t have a number a word."""
    width: Annotated[int, Interval("[1, 64]")] = 4
    """Titles that the beam search keeps at every step when texts are predicted; 1 is the greedy choice. Validation and
    test are greedy."""
    length_power: Annotated[float, Interval("[0, 4]")] = 1.0
    """The search compares log p / n^a for n words and the end; this is a, 0 compares sums."""


class Title(TextModel):
    """Encoder -> states and pooled vector -> decoder -> softmax over the vocabulary, word after word."""

    Options: ClassVar[type] = TitleOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "title")
    chosen_by: ClassVar[tuple[str, str]] = ("rouge_l", "max")
    shown: ClassVar[dict[str, str]] = {"rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "rouge_l": "ROUGE-L"}
    shares: ClassVar[tuple[str, ...]] = tuple(shown)

    def __init__(self, options: TitleOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        words = parts.words(rngs=rngs)
        super().__init__(parts, words, rngs=rngs)
        self.options, self.words = options, words
        self.vocabulary, self.longest = int(sizes["words"]), int(sizes["title"])
        self.decoder = Decoder(
            words.features,
            self.encoder.features,
            self.pooler.features,
            hidden=options.hidden,
            layers=options.layers,
            heads=options.heads,
            modulation=options.modulation,
            rngs=rngs,
        )
        self.bias = nnx.Param(jnp.zeros(self.vocabulary))
        if options.prior != "none":
            self.prior_scale = nnx.Param(jnp.zeros(self.vocabulary))
        if options.prior == "halved":
            self.prior_shift = nnx.Param(jnp.zeros(self.vocabulary))

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs of the model, and of every word of the title -log p given the words before it.

        `present` [B V] has True at the words of the text, `losses` [B L] the words of the title and its end, and
        `counted` [B L] says which of these there are.
        """
        outputs = self.read(batch, rngs)
        outputs["states"] = outputs["states"].astype(jnp.float32)
        outputs["present"] = present(batch.tokens, batch.mask, self.vocabulary)
        targets = batch.targets[:, : self.longest + 1]
        before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=END)
        hidden = self.decoder.along(self.words(before, rngs), self.memory(outputs))
        logits = self.logits(dropout(hidden, self.options.dropout, rngs), outputs["present"])
        right = jnp.where(jnp.arange(self.vocabulary) == targets.reshape(-1, 1), logits, 0).sum(axis=-1)
        counted = jnp.cumsum(targets == END, axis=1) - (targets == END) == 0
        losses = (jax.nn.logsumexp(logits, axis=-1) - right).reshape(targets.shape)
        return {**outputs, "losses": jnp.where(counted, losses, 0), "counted": counted}

    def memory(self, outputs: Outputs) -> Memory:
        """Return what the decoder needs of the texts."""
        return self.decoder.memory(outputs["states"], outputs["mask"], outputs["pooled"])

    def logits(self, hidden: Float[Array, "B L H"], present: Bool[Array, "B V"]) -> Float[Array, "N V"]:
        """Return the logits of the next words, N = B L rows: the features against all word vectors, and the prior.

        One matrix product for all words, the bias in it, and rows in place of two axes: on a CPU half the time.
        """
        prior, bias = self.options.prior, FASTER * self.bias[...]
        bias = bias + FASTER * self.prior_shift[...] if prior == "halved" else bias
        table = jnp.concatenate([self.words(jnp.arange(self.vocabulary)), bias[:, None]], axis=1)
        features = self.decoder.out(hidden).reshape(-1, table.shape[1] - 1)
        y = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1) @ table.T
        if prior == "none":
            return y
        scale = FASTER * self.prior_scale[...]
        scale = scale if prior == "added" else jnp.exp(scale)
        y = y + jnp.repeat(jnp.where(present, scale, 0), hidden.shape[1], axis=0)
        return y if prior == "added" else y / 2

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the cross entropy of a word of a title, its end included."""
        return {"cross_entropy": Mean.of(outputs["losses"], outputs["counted"] * batch.weights[:, None])}

    def search(self, outputs: Outputs, width: int, length_power: float) -> Found:
        """Return the best titles of every text; the unknown word is never written."""
        memory, present = self.memory(outputs), outputs["present"]

        def step(carried: Any, last: Int[Array, "B W"]) -> tuple[Any, Float[Array, "B W V"]]:
            carried, queries = self.decoder.recur(carried, self.words(last), memory)
            log_p = jax.nn.log_softmax(self.logits(self.decoder.read(queries, memory), present))
            return carried, log_p.at[:, UNKNOWN].set(-jnp.inf).reshape(*last.shape, -1)

        texts = present.shape[0]
        begin = jnp.full(texts, END, jnp.int32)
        start = self.decoder.start(texts, width)
        return beam(step, start, begin, width=width, length=self.longest, end=END, length_power=length_power)

    def metrics(self, outputs: Outputs, batch: Batch) -> TitleScores:
        """Return the titles of the texts and those that are written greedily."""
        found = self.search(outputs, 1, 0.0).words[:, 0]
        counted = outputs["counted"] * batch.weights[:, None]
        return TitleScores.of(batch.targets, found, batch.weights, outputs["losses"], counted)

    def predict(self, outputs: Outputs) -> dict[str, Array]:
        """Return the best title of every text, and its log p."""
        found = self.search(outputs, self.options.width, self.options.length_power)
        return {"title": found.words[:, 0], "log_p": found.log_p[:, 0]}

    def records(self, predictions: dict[str, np.ndarray], codec: Any) -> list[dict[str, Any]]:
        """Return the title of every text as the numbers of its words, and its log p."""
        pairs = zip(predictions["title"], predictions["log_p"], strict=True)
        return [{"title": words_of(title), "log_p": float(log_p)} for title, log_p in pairs]
