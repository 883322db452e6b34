"""Other attention with the same output, sought by gradient (Jain and Wallace, NAACL 2019, section 4.2.2)."""

import dataclasses
import math
from collections.abc import Iterable
from functools import partial
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.base.contracts import Batch
from experiments.base.errors import UsageError
from experiments.base.figures import in_style, legend_below, panels
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.layers.losses import jensen_shannon, total_variation
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

FAR = (0.5, 0.69)
"""Divergences above which texts are counted; the largest that is possible is ln 2 = 0.693."""
START = 3.0
"""Standard deviation of the scores at the start, as in the code of the paper."""


@dataclasses.dataclass(frozen=True)
class AdversarialOptions:
    """The largest Jensen-Shannon divergence from the attention of which the output hardly changes."""

    shortest: Annotated[int, Interval("[2, 65536]")] = 2
    """Texts of fewer words are left out; the paper keeps sentences of 6 words and more."""
    weight: Literal["attention", "effective", "contribution"] = "attention"
    """What is driven apart; the second and third exist for a learned norm only."""
    epsilon: Annotated[float, Interval("[0, 1000]")] = 0.05
    """The largest change of the output (total variation distance) with which other attention counts."""
    adversaries: Annotated[int, Interval("[1, 100]")] = 5
    """Vectors of scores that are sought together, each to be far from the others too."""
    steps: Annotated[int, Interval("[1, 100000]")] = 500
    """Steps of the search."""
    learning_rate: Annotated[float, Interval("(0, 10]")] = 0.01
    """Step size of the search (Adam with AMSGrad)."""
    penalty: Annotated[float, Interval("[0, 1e9]")] = 500.0
    """Factor of the change of the output beyond `--ask.free` in the loss of the search."""
    free: Annotated[float, Interval("[0, 1000]")] = 0.01
    """Change of the output that costs nothing in the search."""
    seed: Annotated[int, Interval("[0, 4294967295]")] = 0
    """Random seed of the scores at the start."""


class Adversarial:
    """Scores of the words under which the attention is another one and the output within epsilon.

    The search minimises, for every text and with scores z_1 ... z_K,

        sum_k [ -JSD(a(z_k), a) + penalty max(0, TVD(y(z_k), y) - free) ] - mean_{j < k} JSD(a(z_j), a(z_k))

    Of those within epsilon at the end the one farthest from the attention counts; where there is none, the divergence
    is 0. The other weights of a learned norm are measured under the same scores.
    """

    Options: ClassVar[type] = AdversarialOptions

    def __init__(self, options: AdversarialOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return the divergence of every weight by quarters of the largest one."""
        graph, state = nnx.split(trained.objective)

        def program(batch: Batch, keys: Array) -> Any:
            return _search(graph, self.options, state, batch, keys)

        found = asked(trained, examples, self.options.shortest, program, self.options.seed)
        texts = [text for some in found for text in some]
        weights = largest_weights(texts)
        apart = {name: np.array([text.found["apart"][name] for text in texts]) for name in weights}
        within = np.array([text.found["within"] for text in texts])
        table = [
            {
                "of the words": name,
                "largest weight": quarter,
                "texts": len(chosen),
                "share found": float(within[chosen].mean()),
                "mean largest JSD": float(apart[name][chosen].mean()),
                **{f"share > {far}": float(np.mean(apart[name][chosen] > far)) for far in FAR},
            }
            for name, most in weights.items()
            for quarter, chosen in largest.quarters(most)
        ]
        labels = [str(text.record.get("label", "")) for text in texts]
        figure = picture(weights, apart, labels) if texts else None
        summary = facts([text.found["cosine"] for text in texts])
        return Findings(table, summary, [_example(text) for text in texts], figure)


@partial(jax.jit, static_argnums=(0, 1))
def _search(
    graph: Any, options: AdversarialOptions, state: nnx.State, batch: Batch, keys: Array
) -> tuple[Any, dict[str, Any]]:
    """Return predictions, and output, weights, and the adversary of every text of a batch."""
    objective = nnx.merge(graph, state)
    outputs = objective(batch)
    scores, output = scores_of(objective, outputs), output_of(objective, outputs)
    weights = weights_of(objective, outputs)
    if options.weight not in weights:
        raise UsageError(f"--ask.weight {options.weight}: the pooling has {', '.join(weights)}.")
    K = options.adversaries
    repeated = {name: jnp.tile(outputs[name], (K, *(1,) * (outputs[name].ndim - 1))) for name in ("states", "mask")}

    def under(tried: Float[Array, "K B T *H"]) -> tuple[Array, dict[str, Array]]:
        """Return the change of the output [K B], and the weights [K B T] by name."""
        found = objective.with_scores(repeated, tried.reshape(-1, *scores.shape[1:]))
        changed = output_of(objective, found).reshape(K, *output.shape)
        by_name = {name: x.reshape(K, -1, x.shape[1]) for name, x in weights_of(objective, found).items()}
        return total_variation(output, changed), by_name

    def loss(tried: Float[Array, "K B T *H"]) -> Float[Array, ""]:
        change, by_name = under(tried)
        other = by_name[options.weight]
        terms = options.penalty * jnp.maximum(0, change - options.free) - jensen_shannon(other, weights[options.weight])
        pairs = [jensen_shannon(other[j], other[k]).sum() for j, k in combinations(range(K), 2)]
        return terms.sum() - sum(pairs) / max(len(pairs), 1)

    noise = jax.vmap(lambda key: jax.random.normal(key, (K, *scores.shape[1:])), out_axes=1)(keys)
    search = optax.amsgrad(options.learning_rate)

    def step(_: Array, carried: tuple[Array, Any]) -> tuple[Array, Any]:
        tried, moments = carried
        updates, moments = search.update(jax.grad(loss)(tried), moments)
        return optax.apply_updates(tried, updates), moments

    tried, _ = jax.lax.fori_loop(0, options.steps, step, (START * noise, search.init(noise)))
    change, by_name = under(tried)
    within = change <= options.epsilon
    apart = {name: jnp.where(within, jensen_shannon(x, weights[name]), 0) for name, x in by_name.items()}
    rows, best = jnp.arange(len(output)), apart[options.weight].argmax(axis=0)
    return objective.predict(outputs), {
        "output": output,
        "weights": weights,
        "within": within.any(axis=0),
        "apart": {name: x[best, rows] for name, x in apart.items()},
        "change": change[best, rows],
        "scores": tried[best, rows],
        "adversary": {name: x[best, rows] for name, x in by_name.items()},
        "cosine": cosine_of_states(outputs["states"], outputs["mask"]),
    }


def _example(text: Asked) -> dict[str, Any]:
    cut = slice(len(text.words))
    return {
        **told(text),
        "words": {name: x[cut].tolist() for name, x in text.found["weights"].items()},
        "adversary": {name: x[cut].tolist() for name, x in text.found["adversary"].items()},
        "scores": text.found["scores"][cut].tolist(),
        "within": bool(text.found["within"]),
        "JSD": {name: float(x) for name, x in text.found["apart"].items()},
        "change": float(text.found["change"]),
    }


@in_style
def picture(
    weights: dict[str, Float[np.ndarray, " N"]], apart: dict[str, Float[np.ndarray, " N"]], labels: list[str]
) -> Figure:
    """Draw, for every kind of weight, the histogram of the divergence, and it against the largest weight."""
    named = largest.frequent(labels)
    legend = [*named, largest.OTHERS, largest.MEDIAN]
    figure, axes = panels(2 * len(weights), 2.2, legend=legend, across=max(len(weights), 2))
    for name, top, below in zip(weights, axes[: len(weights)], axes[len(weights) :], strict=True):
        top.hist(apart[name], bins=24, range=(0, math.log(2)))
        top.set(title=name, xlabel="largest JSD", ylabel="texts", xlim=(0, 0.7))
        largest.draw(below, weights[name], apart[name], labels, named)
        below.set(ylabel="largest JSD", ylim=(0, 0.7))
    legend_below(figure, axes, legend)
    return figure
