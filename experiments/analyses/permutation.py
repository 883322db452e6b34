"""How far the output moves when the attention is shuffled over the words (Jain and Wallace, NAACL 2019, 4.2.1)."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from experiments.base.contracts import Batch
from experiments.base.figures import in_style, legend_below, panels
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.layers.losses import total_variation
from experiments.run import largest
from experiments.run.importance import (
    Asked,
    asked,
    cosine_of_states,
    facts,
    largest_weights,
    output_of,
    scores_of,
    told,
    weights_of,
)
from experiments.run.trained import Trained

SMALL = 0.05
"""The change of the output that the paper takes for none."""


@dataclasses.dataclass(frozen=True)
class PermutationOptions:
    """The median change of the output over shuffles of the attention, against the largest weight of a word."""

    shortest: Annotated[int, Interval("[2, 65536]")] = 2
    """Texts of fewer words are left out; the paper keeps sentences of 6 words and more."""
    shuffles: Annotated[int, Interval("[1, 100000]")] = 100
    """Orders of the scores that are tried for every text."""
    seed: Annotated[int, Interval("[0, 4294967295]")] = 0
    """Random seed of the orders."""


class Permutation:
    """The scores of the words of a text in other orders, the states as they are.

    Shuffled scores shuffle what follows from them alone: the attention and the effective weight. A contribution is
    computed again from the states and the shuffled scores.
    """

    Options: ClassVar[type] = PermutationOptions

    def __init__(self, options: PermutationOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return the change of the output by quarters of the largest weight."""
        graph, state = nnx.split(trained.objective)

        def program(batch: Batch, keys: Array) -> Any:
            return _shuffle(graph, self.options.shuffles, state, batch, keys)

        found = asked(trained, examples, self.options.shortest, program, self.options.seed)
        texts = [text for some in found for text in some]
        weights = largest_weights(texts)
        change = np.array([text.found["change"] for text in texts])
        table = [
            {
                "of the words": name,
                "largest weight": quarter,
                "texts": len(chosen),
                "median change": float(np.median(change[chosen])),
                "mean change": float(change[chosen].mean()),
                f"share <= {SMALL}": float(np.mean(change[chosen] <= SMALL)),
            }
            for name, most in weights.items()
            for quarter, chosen in largest.quarters(most)
        ]
        labels = [str(text.record.get("label", "")) for text in texts]
        figure = picture(weights, change, labels) if texts else None
        summary = facts([text.found["cosine"] for text in texts])
        return Findings(table, summary, [_example(text) for text in texts], figure)


def shuffled(
    scores: Float[Array, "B T *H"], mask: Bool[Array, "B T"], noise: Float[Array, "B T"]
) -> Float[Array, "B T *H"]:
    """Return the scores of the real tokens of every text, which come first, in the order of `noise`."""
    order = jnp.argsort(jnp.where(mask, noise, jnp.inf), axis=1)
    return jnp.take_along_axis(scores, order.reshape(*order.shape, *(1,) * (scores.ndim - 2)), axis=1)


@partial(jax.jit, static_argnums=(0, 1))
def _shuffle(graph: Any, shuffles: int, state: nnx.State, batch: Batch, keys: Array) -> tuple[Any, dict[str, Any]]:
    """Return predictions, and output, weights and the median change of the output of a batch."""
    objective = nnx.merge(graph, state)
    outputs = objective(batch)
    scores, output = scores_of(objective, outputs), output_of(objective, outputs)

    def changed(number: Array) -> Float[Array, " B"]:
        noise = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), scores.shape[1:2]))(keys)
        other = objective.with_scores(outputs, shuffled(scores, outputs["mask"], noise))
        return total_variation(output, output_of(objective, other))

    return objective.predict(outputs), {
        "output": output,
        "weights": weights_of(objective, outputs),
        "change": jnp.median(jax.lax.map(changed, jnp.arange(shuffles)), axis=0),
        "cosine": cosine_of_states(outputs["states"], outputs["mask"]),
    }


def _example(text: Asked) -> dict[str, Any]:
    return {
        **told(text),
        "words": {name: x[: len(text.words)].tolist() for name, x in text.found["weights"].items()},
        "change": float(text.found["change"]),
    }


@in_style
def picture(
    weights: dict[str, Float[np.ndarray, " N"]], change: Float[np.ndarray, " N"], labels: Sequence[str]
) -> Figure:
    """Draw the change of every text against its largest weight, a panel a kind of weight."""
    named = largest.frequent(labels)
    legend = [*named, largest.OTHERS, largest.MEDIAN]
    figure, axes = panels(len(weights), 2.4, legend=legend)
    for axis, (name, most) in zip(axes, weights.items(), strict=True):
        largest.draw(axis, most, change, labels, named)
        axis.set(title=name, ylabel="median change of the output")
    legend_below(figure, axes, legend)
    return figure
