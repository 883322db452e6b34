"""Deep mutual information: texts are encoded without labels, so that the summary of a text tells about its parts.

Sources: Hjelm et al., "Learning deep representations by mutual information estimation and maximization" (ICLR 2019);
with a Gaussian summary and its prior, Su, kexue.fm/archives/6024 (2018); for texts, Zhang et al., "An unsupervised
sentence embedding method by mutual information maximization" (EMNLP 2020).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers.masked import masked_mean
from experiments.layers.mutual_information import ESTIMATORS, Critic, Estimate, different_texts, gaussian_kl
from experiments.layers.normalised import Normalisation
from experiments.layers.text_model import TextModel


@dataclasses.dataclass(frozen=True)
class MutualInformationOptions:
    """A Gaussian summary of the pooled vector, two critics, and the weights of the loss terms."""

    estimator: Literal["jsd", "infonce"] = "jsd"
    """What is maximised: a bound of the Jensen-Shannon divergence, or of the mutual information itself."""
    features: Annotated[int, Interval("[1, 4096]")] = 256
    """Numbers of the summary."""
    hidden: Annotated[int, Interval("[1, 4096]")] = 256
    """Hidden units of a critic."""
    normalise: Normalisation = "none"
    """How the matrices of critics are normalised: weight learns the lengths of columns, spectral makes the norm 1."""
    part: Annotated[float, Interval("[0, 1000]")] = 1.5
    """Weight of the local term: the states of the words with the summary."""
    whole: Annotated[float, Interval("[0, 1000]")] = 0.5
    """Weight of the global term: the mean of the states with the summary."""
    prior: Annotated[float, Interval("[0, 1000]")] = 0.01
    """Weight of the prior term: the mean divergence of a number of the summary from N(0, 1)."""


class Bounds(NamedTuple):
    """The bounds of the local and the global information, the weighted mean of both, and the prior; means of texts."""

    both: Mean
    part: Mean
    whole: Mean
    prior: Mean

    def __add__(self, other: "Bounds") -> "Bounds":  # type: ignore[override]
        return Bounds(*(one + two for one, two in zip(self, other, strict=True)))

    def compute(self) -> dict[str, float]:
        """Return the means in nats; 0 where no text has words and another text beside it."""
        values = (float(mean.sum / max(np.float64(mean.weight), 1)) for mean in self)
        return dict(zip(("bound", "local_bound", "global_bound", "prior_kl"), values, strict=True))


class MutualInformation(TextModel):
    """Encoder -> pooler -> mean and log-variance of the summary z; critics tell whether a part and z are of one text.

    The summary is drawn in training and is its mean otherwise. The negatives of a text are the other texts of its
    batch that have words, and not the same ones in the same order. Targets are not read.
    """

    Options: ClassVar[type] = MutualInformationOptions
    needs: ClassVar[tuple[str, ...]] = ("words",)
    chosen_by: ClassVar[tuple[str, str]] = ("bound", "max")
    shown: ClassVar[dict[str, str]] = {
        "bound": "bound",
        "local_bound": "local bound",
        "global_bound": "global bound",
        "prior_kl": "KL from the prior",
    }
    contrasts: ClassVar[bool] = True

    def __init__(self, options: MutualInformationOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.options = options
        self.summary = nnx.Linear(self.pooler.features, 2 * options.features, rngs=rngs)
        self.part, self.whole = (
            Critic(self.encoder.features, options.features, options.hidden, options.normalise, rngs=rngs)
            for _ in range(2)
        )

    @property
    def term_weights(self) -> Mapping[str, float]:
        """The weights of the terms, which are options."""
        return {"local": self.options.part, "global": self.options.whole, "prior": self.options.prior}

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs with `mean`, `log_variance` and `summary` [B Z]."""
        mean, log_variance = jnp.split(self.summary(outputs["pooled"]), 2, axis=-1)
        noise = 0 if rngs is None else jnp.exp(log_variance / 2) * jax.random.normal(rngs.dropout(), mean.shape)
        return {**outputs, "mean": mean, "log_variance": log_variance, "summary": mean + noise}

    def estimates(self, outputs: Outputs, batch: Batch) -> tuple[Estimate, Estimate, Float[Array, " B"]]:
        """Return the local and the global estimate, and the weights of the texts: 0 without words or without others."""
        states, mask = outputs["states"].astype(jnp.float32), outputs["mask"]
        others = different_texts(batch)
        some = mask.any(axis=1)
        estimator = ESTIMATORS[self.options.estimator]
        local = estimator(self.part(states, outputs["summary"]), mask, others)
        mean = masked_mean(states, mask)[:, None]
        whole = estimator(self.whole(mean, outputs["summary"]), some[:, None], others)
        return local, whole, batch.weights * (some & others.any(axis=1))

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the losses of the words and of the mean of the states, and the divergence from the prior."""
        local, whole, weights = self.estimates(outputs, batch)
        return {
            "local": Mean.of(local.loss, weights),
            "global": Mean.of(whole.loss, weights),
            "prior": Mean.of(self._prior(outputs), batch.weights * outputs["mask"].any(axis=1)),
        }

    def metrics(self, outputs: Outputs, batch: Batch) -> Bounds:
        """Return the bounds, and the divergence from the prior."""
        local, whole, weights = self.estimates(outputs, batch)
        share = self.options.part, self.options.whole
        both = (share[0] * local.bound + share[1] * whole.bound) / max(sum(share), 1e-12)
        prior = Mean.of(self._prior(outputs), batch.weights * outputs["mask"].any(axis=1))
        return Bounds(Mean.of(both, weights), Mean.of(local.bound, weights), Mean.of(whole.bound, weights), prior)

    def _prior(self, outputs: Outputs) -> Float[Array, " B"]:
        return gaussian_kl(outputs["mean"], outputs["log_variance"]).mean(axis=-1)

    def predict(self, outputs: Outputs) -> dict[str, Float[Array, "B Z"]]:
        """Return the means of the summaries."""
        return {"vector": outputs["mean"]}

    def records(self, predictions: dict[str, Float[np.ndarray, "B Z"]], codec: Any) -> list[dict[str, Any]]:
        """Return the vector of every text."""
        return [{"vector": vector.tolist()} for vector in predictions["vector"]]
