"""What a validation logs beside the metrics: attention, pooled vectors, the gradient of the exponent.

Everything is a sum over examples, computed by the program that computes the metrics.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import entr
from jaxtyping import Float

from experiments.base import devices
from experiments.base.contracts import Batch, Last, Mean, Metrics, Outputs
from experiments.layers.text_model import is_exponent


class Diagnostics(NamedTuple):
    """Sums over texts with at least one token; None where nothing is pooled, attended to or trained as an exponent."""

    examples: Float[Array, ""]
    texts: Float[Array, ""] | None
    pooled_norm: Float[Array, ""] | None
    attention_entropy: Float[Array, ""] | None
    rho_gradient: list[Array]

    @classmethod
    def of(cls, outputs: Outputs, weights: Float[Array, " B"], rho_gradient: list[Array]) -> "Diagnostics":
        """Return the sums of one batch; the gradient is that of the loss times the number of examples."""
        if not {"pooled", "mask"} <= outputs.keys():
            return cls(weights.sum(), None, None, None, rho_gradient)
        real = weights * outputs["mask"].any(axis=1)
        norms = jnp.linalg.norm(outputs["pooled"].astype(jnp.float32), axis=-1)
        entropy = None
        if "attention" in outputs:
            attention = outputs["attention"].astype(jnp.float32)
            mask = outputs["mask"].reshape(outputs["mask"].shape + (1,) * (attention.ndim - 2))
            entropies = jnp.where(mask, entr(attention), 0).sum(axis=1)
            entropy = (real * entropies.reshape(len(real), -1).mean(axis=1)).sum()
        return cls(weights.sum(), real.sum(), (real * norms).sum(), entropy, rho_gradient)

    def __add__(self, other: "Diagnostics") -> "Diagnostics":  # type: ignore[override]
        return jax.tree.map(lambda one, two: one + two, self, other)

    def compute(self) -> dict[str, float]:
        """Return the mean L2 norm, the mean entropy in nats (over texts and heads), the norm of the gradient of rho."""
        numbers = {}
        if self.texts is not None and self.pooled_norm is not None:
            texts = float(self.texts) or 1.0
            numbers["pooled_norm"] = float(self.pooled_norm) / texts
            if self.attention_entropy is not None:
                numbers["attention_entropy"] = float(self.attention_entropy) / texts
        if self.rho_gradient:
            gradient = np.concatenate([np.ravel(leaf) for leaf in self.rho_gradient])
            numbers["rho_gradient"] = float(np.linalg.norm(gradient.astype(np.float64))) / float(self.examples)
        return numbers


class Evaluation(NamedTuple):
    """Loss terms, metrics, scalars and diagnostics of one or several batches."""

    terms: Mapping[str, Mean]
    metrics: Metrics
    scalars: Mapping[str, Mean | Last]
    diagnostics: Diagnostics
    p: Any
    """The exponent or exponents, None where there are none; the same for all batches."""

    def __add__(self, other: "Evaluation") -> "Evaluation":  # type: ignore[override]
        return Evaluation(
            added(self.terms, other.terms),
            self.metrics + other.metrics,
            added(self.scalars, other.scalars),
            self.diagnostics + other.diagnostics,
            other.p,
        )

    def compute(self, term_weights: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics, the loss, its terms where there are several, scalars and diagnostics, by name.

        A term that no example counts for has no value, and a split without terms has no loss.
        """
        means = numbers({name: term for name, term in self.terms.items() if term.weight > 0})
        loss = {"loss": sum(mean * term_weights.get(name, 1) for name, mean in means.items())} if means else {}
        terms = means if len(means) > 1 else {}
        return {
            **self.metrics.compute(),
            **loss,
            **terms,
            **numbers(self.scalars),
            **self.diagnostics.compute(),
        }


def added(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of the means, and the later of the last values, name by name."""
    return {name: one[name] + two[name] for name in one}


def numbers(values: Mapping[str, Mean | Last]) -> dict[str, float]:
    """Return means and last values, fetched from the devices, as numbers; a mean of nothing is 0."""
    return {
        name: float(value.value) if isinstance(value, Last) else float(value.sum / max(np.float64(value.weight), 1))
        for name, value in values.items()
    }


def evaluate(
    step: Callable, parameters: Any, batches: Iterable[Batch], term_weights: Mapping[str, float]
) -> tuple[dict[str, float], Any]:
    """Return the numbers of a whole split, and the exponent."""
    parts = [step(parameters, devices.put_batch(batch)) for batch in batches]
    evaluation = reduce(operator.add, jax.device_get(parts))
    return evaluation.compute(term_weights), evaluation.p


def with_exponent_gradient(function: Callable[[Any], tuple[Array, Any]], parameters: Any) -> tuple[Any, list[Array]]:
    """Return the rest of `function(parameters) -> (total, rest)`, and d total / d rho of every `rho`.

    Only the exponents are differentiated: the way back ends at the pooler.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameters)
    places = [index for index, (path, _) in enumerate(leaves) if is_exponent(path)]

    def of(exponents: list[Array]) -> tuple[Array, Any]:
        values = [leaf for _, leaf in leaves]
        for index, exponent in zip(places, exponents, strict=True):
            values[index] = exponent
        return function(jax.tree.unflatten(structure, values))

    if not places:
        return function(parameters)[1], []
    gradient, rest = jax.grad(of, has_aux=True)([leaves[index][1] for index in places])
    return rest, gradient
