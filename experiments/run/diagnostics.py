"""What a validation tells beside the scores: attention, pooled vectors, the pull on the exponent.

Everything is a sum over examples, computed by the program that computes the scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import entr
from jaxtyping import Float

from experiments.base.contracts import Batch, Intermediates, Metrics
from experiments.layers.text_model import is_exponent


class Diagnostics(NamedTuple):
    """Sums over texts with at least one word; None where the pooler has no attention or no trained exponent."""

    texts: Float[Array, ""]
    pooled_norm: Float[Array, ""]
    attention_entropy: Float[Array, ""] | None
    examples: Float[Array, ""]
    rho_gradient: list[Array]

    @classmethod
    def of(cls, shown: Intermediates, batch: Batch, rho_gradient: list[Array]) -> "Diagnostics":
        """Return the sums of one batch; the gradient is that of the summed loss."""
        real = batch.weights * batch.mask.any(axis=1)
        norms = jnp.linalg.norm(shown["pooled"].astype(jnp.float32), axis=-1)
        entropy = None
        if "attention" in shown:
            attention = shown["attention"].astype(jnp.float32)
            mask = shown["mask"].reshape(shown["mask"].shape + (1,) * (attention.ndim - 2))
            entropies = jnp.where(mask, entr(attention), 0).sum(axis=1)
            entropy = (real * entropies.reshape(len(real), -1).mean(axis=1)).sum()
        return cls(real.sum(), (real * norms).sum(), entropy, batch.weights.sum(), rho_gradient)

    def __add__(self, other: "Diagnostics") -> "Diagnostics":  # type: ignore[override]
        return jax.tree.map(lambda one, two: one + two, self, other)

    def compute(self) -> dict[str, float]:
        """Return the mean L2 norm, the mean entropy in nats (over texts and heads), the norm of the gradient of rho."""
        texts, examples = float(self.texts) or 1.0, float(self.examples)
        numbers = {"pooled_norm": float(self.pooled_norm) / texts}
        if self.attention_entropy is not None:
            numbers["attention_entropy"] = float(self.attention_entropy) / texts
        if self.rho_gradient:
            gradient = np.concatenate([np.ravel(leaf) for leaf in self.rho_gradient])
            numbers["rho_gradient"] = float(np.linalg.norm(gradient.astype(np.float64))) / examples
        return numbers


class Evaluation(NamedTuple):
    """The scores of a task and the diagnostics, added and computed together."""

    metrics: Metrics
    diagnostics: Diagnostics

    def __add__(self, other: "Evaluation") -> "Evaluation":  # type: ignore[override]
        return Evaluation(self.metrics + other.metrics, self.diagnostics + other.diagnostics)

    def compute(self) -> dict[str, float]:
        """Return the numbers of both."""
        return {**self.metrics.compute(), **self.diagnostics.compute()}


def with_exponent_gradient(function: Callable[[Any], tuple[Array, Any]], parameters: Any) -> tuple[Any, list[Array]]:
    """Return what `function(parameters) -> (total, rest)` says as rest, and d total / d rho of every `rho`.

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
