"""What is learned from another run: an adversary of its attention, and a classifier that uses its weights.

Both are of Wiegreffe and Pinter, "Attention is not not Explanation" (EMNLP 2019). The other run is `--head.base`; its
answers come with the batches.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers.classifier import Classifier
from experiments.layers.head import Head, HeadOptions
from experiments.layers.losses import jensen_shannon, kullback_leibler, total_variation
from experiments.layers.masked import by_token
from experiments.layers.text_model import Model, in_dtype


@dataclasses.dataclass(frozen=True)
class GuidedOptions(HeadOptions):
    """Dropout and one linear layer, and the run that guides."""

    base: Path | None = None
    """Folder of the finished run whose attention is used: of the same data, one state a word, with attention."""


@dataclasses.dataclass(frozen=True)
class AdversaryOptions(GuidedOptions):
    """The output of another run with another attention."""

    strength: Annotated[float, Interval("[0, 1e6]")] = 0.1
    """Factor lambda of the divergence of the attention in the loss."""
    divergence: Literal["kl", "js"] = "kl"
    """kl is the Kullback-Leibler divergence from the attention of the base, as in the paper; js is Jensen-Shannon."""


class Apart(NamedTuple):
    """Sums over texts."""

    loss: Float[Array, ""]
    variation: Float[Array, ""]
    jensen_shannon: Float[Array, ""]
    hits: Float[Array, ""]
    texts: Float[Array, ""]

    def __add__(self, other: "Apart") -> "Apart":  # type: ignore[override]
        return Apart(*(one + more for one, more in zip(self, other, strict=True)))

    def compute(self) -> dict[str, float]:
        """Return the means over texts."""
        names = ("objective", "variation", "jensen_shannon", "accuracy")
        return {name: float(np.float64(x) / self.texts) for name, x in zip(names, self[:4], strict=True)}


class Adversary(Classifier):
    """The loss is TVD(y, y_base) - lambda D(a || a_base): to say what the base says, and to look elsewhere.

    Both are means over texts; the paper sums over a batch, so that its lambda depends on the batch size.
    """

    Options: ClassVar[type] = AdversaryOptions
    chosen_by: ClassVar[tuple[str, str]] = ("objective", "min")
    shown: ClassVar[dict[str, str]] = {
        "objective": "loss",
        "variation": "TVD",
        "jensen_shannon": "JSD",
        "accuracy": "accuracy",
    }
    shares: ClassVar[tuple[str, ...]] = ("accuracy",)
    guided: ClassVar[Literal["", "loss", "outputs"]] = "loss"

    def __init__(self, options: AdversaryOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(options, sizes, parts, rngs=rngs)
        if not hasattr(self.pooler, "detached"):
            raise ValueError("an adversary needs a pooling with attention.")
        self.strength, self.divergence = options.strength, options.divergence

    @property
    def term_weights(self) -> Mapping[str, float]:
        """The weight of the divergence, which is to be large."""
        return {"divergence": -self.strength}

    def distances(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Return the total variation distance from the base and the divergence from its attention, of every text."""
        between = {"kl": kullback_leibler, "js": jensen_shannon}[self.divergence]
        variation = total_variation(self.predict(outputs), batch.guide.output)
        return variation, between(by_token(outputs["attention"]), batch.guide.attention)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the distance of the outputs and the divergence of the attention."""
        variation, divergence = self.distances(outputs, batch)
        return {"variation": Mean.of(variation, batch.weights), "divergence": Mean.of(divergence, batch.weights)}

    def metrics(self, outputs: Outputs, batch: Batch) -> Apart:
        """Return the sums behind loss, distances and accuracy."""
        variation, divergence = self.distances(outputs, batch)
        apart = jensen_shannon(by_token(outputs["attention"]), batch.guide.attention)
        hits = outputs["logits"].argmax(-1) == batch.targets
        values = variation - self.strength * divergence, variation, apart, hits, jnp.ones_like(variation)
        return Apart(*((batch.weights * value).sum() for value in values))


class Guided(Classifier):
    """Encoder -> sum of states with the weights of the base -> linear layer -> softmax.

    With an encoder without context (`mlp`), the accuracy says how much the weights of the base are worth by themselves.
    """

    Options: ClassVar[type] = GuidedOptions
    pools: ClassVar[bool] = False
    guided: ClassVar[Literal["", "loss", "outputs"]] = "outputs"
    p = None

    def __init__(self, options: GuidedOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        self.encoder, self.compute = parts.encoder(rngs=rngs), parts.compute
        self.head = Head(options, self.encoder.features, int(sizes["classes"]), rngs=rngs)

    def read(self, batch: Batch, rngs: nnx.Rngs | None) -> dict[str, Array]:
        """Return `states` and their `mask`, and `pooled` with the `attention` of the base."""
        states, mask = in_dtype(self.encoder, self.compute)(batch.tokens, batch.mask, rngs)
        weights = jnp.where(mask, batch.guide.attention, 0)
        pooled = jnp.einsum("bt,btd->bd", weights, jnp.where(mask[..., None], states, 0))
        return {"states": states, "mask": mask, "pooled": pooled, "attention": weights}

    def weights(self, outputs: Outputs) -> Outputs:
        """Return the weights of the base."""
        return Model.weights(self, outputs)
