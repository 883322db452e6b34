"""How much each word of a text matters to a trained model, by several measures, and how far the measures agree.

The measures of Jain and Wallace, "Attention is not Explanation" (NAACL 2019): what a word weighs in the pooling, the
derivative of the output, and the change of the output without the word. Agreement of two is Kendall's tau in each text.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float
from scipy import stats

from experiments.base.contracts import Batch, Findings, Objective, Outputs
from experiments.base.errors import UsageError
from experiments.data.text import Example
from experiments.data.text_task import TextCodec
from experiments.layers.words import Scale
from experiments.run.trained import Trained

GRADIENT = "gradient"
TEXTS_AT_ONCE = 64
SIGNIFICANT = 0.05


class Measured(NamedTuple):
    """A text and what its words matter."""

    example: Example
    words: list[str]
    """The words that the model reads: those after the largest length are cut."""
    output: Float[np.ndarray, " K"]
    """The prediction: a probability a class or tag, or one number."""
    measures: dict[str, Float[np.ndarray, " T"]]
    """A number a word: `attention` and other weights of the pooling, and `gradient`."""
    record: dict[str, Any]
    """The prediction, readable."""


def measured(trained: Trained, examples: Iterable[Example], shortest: int) -> Iterator[list[Measured]]:
    """Yield texts of at least `shortest` words with the weights of their words and the gradient, some at a time.

    The gradient importance of word i is |dy/ds_i| where s_i = 1 is a factor before its vector x_i: |x_i . dy/dx_i|, the
    derivative with respect to the word's one-hot vector. The attention is detached; y is the probability of the most
    probable class, or the number that is predicted.
    """
    codec = _codec(trained)
    graph, state = nnx.split(trained.objective)
    rest = iter(examples)
    while some := list(islice(rest, TEXTS_AT_ONCE)):
        cut = [(example, codec.words(example.text)) for example in some]
        long = [(example, words) for example, words in cut if len(words) >= shortest]
        batches = codec.encode(words for _, words in long)
        rows = (
            row for batch in batches for row in _rows(trained, batch, jax.device_get(_measure(graph, state, batch)))
        )
        yield [
            Measured(example, words, output, {name: x[: len(words)] for name, x in measures.items()}, record)
            for (example, words), (output, measures, record) in zip(long, rows, strict=True)
        ]


def without_each_word(trained: Trained, texts: Sequence[Measured]) -> list[Float[np.ndarray, " T"]]:
    """Return for every word of the texts how far the output moves when the text is encoded again without the word.

    The distance is the total variation, half the sum of absolute differences, or the absolute difference of one number.
    """
    shortened = (text.words[:i] + text.words[i + 1 :] for text in texts for i in range(len(text.words)))
    outputs = (
        row
        for batch, found in trained.outputs(shortened)
        for row in np.asarray(output_of(trained.objective, found))[: int(batch.weights.sum())]
    )
    return [np.array([distance(text.output, next(outputs)) for _ in text.words]) for text in texts]


def distance(one: Float[np.ndarray, " K"], other: Float[np.ndarray, " K"]) -> float:
    """Return the total variation of two predictions; for one number the absolute difference."""
    apart = np.abs(np.float64(one) - np.float64(other)).sum()
    return float(apart if len(one) == 1 else apart / 2)


def output_of(objective: Objective, outputs: Outputs) -> Float[Array, "B K"]:
    """Return the predictions as numbers, one column where there is one number a text."""
    predictions = objective.predict(outputs)
    if not isinstance(predictions, jax.Array) or not jnp.issubdtype(predictions.dtype, jnp.floating):
        raise UsageError("the analysis needs an objective that predicts probabilities or a number a text.")
    return predictions.reshape(len(predictions), -1)


def agreement(texts: Sequence[tuple[Measured, dict[str, np.ndarray]]], with_measure: str) -> Findings:
    """Return how far all measures agree with one: Kendall's tau-b in each text, its mean, spread and significance.

    Args:
        texts: the texts, each with the measures of its words.
        with_measure: the measure that the others are compared with.
    """
    names = [name for name in (texts[0][1] if texts else {}) if name != with_measure]
    taus = {name: [tau(measures[name], measures[with_measure]) for _, measures in texts] for name in names}
    table = [_row(name, with_measure, pairs) for name, pairs in taus.items()]
    examples = [
        {
            "text": " ".join(text.words),
            "target": text.example.target,
            "prediction": text.record,
            "words": {name: values.tolist() for name, values in measures.items()},
            "tau": {name: dict(zip(("tau", "p"), taus[name][at], strict=True)) for name in names},
        }
        for at, (text, measures) in enumerate(texts)
    ]
    return Findings(table, {"texts": len(texts)}, examples)


def tau(one: np.ndarray, other: np.ndarray) -> tuple[float | None, float | None]:
    """Return Kendall's tau-b and its p-value; None where it is not defined, because all words matter alike."""
    found = stats.kendalltau(one, other)
    defined = bool(np.isfinite(found.statistic))
    return (float(found.statistic), float(found.pvalue)) if defined else (None, None)


def _row(name: str, other: str, pairs: list[tuple[float | None, float | None]]) -> dict[str, Any]:
    taus = np.array([tau for tau, _ in pairs if tau is not None])
    significant = [p <= SIGNIFICANT for _, p in pairs if p is not None]
    row: dict[str, Any] = {"of the words": name, "with": other, "texts": len(taus)}
    numbers = (taus.mean(), taus.std(), np.mean(significant)) if len(taus) else (None,) * 3
    columns = ("mean tau", "standard deviation", f"share p <= {SIGNIFICANT}")
    return row | {column: number and float(number) for column, number in zip(columns, numbers, strict=True)}


@partial(jax.jit, static_argnums=0)
def _measure(graph: Any, state: nnx.State, batch: Batch) -> tuple[Array, Outputs, Any]:
    """Return outputs, measures and predictions of a batch."""

    def largest(scale: Float[Array, "B T"]) -> tuple[Array, Any]:
        objective = nnx.merge(graph, state)
        objective.set_attributes(detached=True, scale=Scale(scale), raise_if_not_found=False)
        outputs = objective(batch)
        output = output_of(objective, outputs)
        weights = {name: x.reshape(*x.shape[:2], -1).mean(-1) for name, x in objective.weights(outputs).items()}
        return output.max(axis=-1).sum(), (output, weights, objective.predict(outputs))

    gradient, (output, weights, predictions) = jax.grad(largest, has_aux=True)(jnp.ones(batch.mask.shape))
    return output, {**weights, GRADIENT: jnp.abs(gradient)}, predictions


def _rows(trained: Trained, batch: Batch, found: tuple[Any, Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield output, measures and readable prediction of each real row."""
    real = int(batch.weights.sum())
    output, measures, predictions = jax.tree.map(lambda x: x[:real], found)
    records = trained.objective.records(predictions, trained.codec)
    for at in range(real):
        yield output[at], {name: values[at] for name, values in measures.items()}, records[at]


def _codec(trained: Trained) -> TextCodec:
    """Return what turns texts into batches, or raise UsageError where words have no measure."""
    if not isinstance(trained.codec, TextCodec):
        raise UsageError(f"the analysis needs a task whose examples are texts, which {trained.config.task} is not.")
    if trained.config.encode.reads_sentences:
        raise UsageError(f"the analysis needs one state a word, but {trained.config.encoder} has one a sentence.")
    if not trained.objective.pools:
        raise UsageError(f"the analysis needs a pooling, which the objective {trained.config.objective} has not.")
    return trained.codec
