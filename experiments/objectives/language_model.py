"""Language modelling: the next word of a text from the words before it. Pooling has no part in it."""

import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.errors import UsageError
from experiments.base.options import Interval
from experiments.layers.losses import cross_entropy
from experiments.layers.masked import dropout
from experiments.layers.text_model import Model, in_dtype


@dataclasses.dataclass(frozen=True)
class LanguageModelOptions:
    """Dropout and one linear layer from a state to the vocabulary."""

    dropout: Annotated[float, Interval("[0, 1)")] = 0.3
    """Dropout rate of the states."""


class Likelihood(NamedTuple):
    """Negative log-likelihood in nats and number of words."""

    nats: Float[Array, ""]
    words: Float[Array, ""]

    def __add__(self, other: "Likelihood") -> "Likelihood":  # type: ignore[override]
        return Likelihood(self.nats + other.nats, self.words + other.words)

    def compute(self) -> dict[str, float]:
        """Return the perplexity, exp of the mean negative log-likelihood of a word."""
        return {"perplexity": float(np.exp(np.float64(self.nats) / max(np.float64(self.words), 1)))}


class LanguageModel(Model):
    """Causal encoder -> linear layer -> softmax over the vocabulary, for every word of a text, the first one too.

    The word before the first one is the padding word, whose vector so learns what a beginning means. The unknown word
    counts as a word, so perplexities compare only where vocabularies are the same.
    """

    Options: ClassVar[type] = LanguageModelOptions
    needs: ClassVar[tuple[str, ...]] = ("words",)
    chosen_by: ClassVar[tuple[str, str]] = ("perplexity", "min")
    shown: ClassVar[dict[str, str]] = {"perplexity": "perplexity"}
    pools: ClassVar[bool] = False

    def __init__(self, options: LanguageModelOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        self.encoder = parts.encoder(rngs=rngs)
        if not self.encoder.causal:
            raise UsageError(
                "a language model needs an encoder whose states have seen no later words: choose bag, mlp, gru, "
                "lstm or onlstm, or transformer with --encode.causal."
            )
        self.compute = parts.compute
        self.rate = options.dropout
        self.head = nnx.Linear(self.encoder.features, int(sizes["words"]), rngs=rngs)

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return `states` [B T D] before each word, their `mask`, and `losses` [B T], -log p(word | words before)."""
        before = jnp.pad(batch.tokens[:, :-1], ((0, 0), (1, 0)))
        states, mask = in_dtype(self.encoder, self.compute)(before, batch.mask, rngs)
        losses = self._losses(dropout(states.astype(jnp.float32), self.rate, rngs), batch.tokens)
        return {"states": states, "mask": mask, "losses": jnp.where(mask, losses, 0)}

    def levels(self, batch: Batch) -> Float[Array, "L B T"]:
        """Return the levels of the words in every layer, each as it is read, after the word of the beginning.

        The encoder must have `levels`, as that of `onlstm`.
        """
        tokens = jnp.pad(batch.tokens, ((0, 0), (1, 0)))
        encoder: Any = self.encoder
        return encoder.levels(tokens, jnp.pad(batch.mask, ((0, 0), (1, 0)), constant_values=True))[..., 1:]

    def _losses(self, states: Float[Array, "B T D"], tokens: Int[Array, "B T"]) -> Float[Array, "B T"]:
        """Return the cross entropy of every word, one place at a time: all logits at once would be [B T words]."""

        @jax.checkpoint
        def at(place: tuple[Array, Array]) -> Array:
            return cross_entropy(self.head(place[0]), place[1])

        return jax.lax.map(at, (states.swapaxes(0, 1), tokens.T)).T

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the cross entropy of a word."""
        return {"cross_entropy": Mean.of(outputs["losses"], outputs["mask"] * batch.weights[:, None])}

    def metrics(self, outputs: Outputs, batch: Batch) -> Likelihood:
        """Return the sums behind the perplexity."""
        real = outputs["mask"] * batch.weights[:, None]
        return Likelihood((real * outputs["losses"]).sum(), real.sum())

    def predict(self, outputs: Outputs) -> dict[str, Array]:
        """Return the negative log-likelihood of every text and its number of words."""
        return {"nats": outputs["losses"].sum(axis=1), "words": outputs["mask"].sum(axis=1)}

    def records(self, predictions: dict[str, np.ndarray], codec: Any) -> list[dict[str, Any]]:
        """Return the perplexity of every text; None for one without words."""
        pairs = zip(predictions["nats"], predictions["words"], strict=True)
        return [{"perplexity": float(np.exp(nats / words)) if words else None} for nats, words in pairs]
