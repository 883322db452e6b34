"""How much each word of a text matters to a trained model, by several measures, and how far the measures agree.

The measures of Jain and Wallace, "Attention is not Explanation" (NAACL 2019): what a word weighs in the pooling, the
derivative of the output, and the change of the output without the word. Agreement of two is Kendall's tau in each text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float
from scipy import stats

from experiments.base.contracts import Batch, Objective, Outputs
from experiments.base.errors import UsageError
from experiments.base.findings import Findings
from experiments.data.text import Example
from experiments.data.text_task import TextCodec
from experiments.layers.losses import total_variation
from experiments.layers.masked import by_token, zero_padding
from experiments.layers.words import Scale
from experiments.run.trained import Trained

GRADIENT = "gradient"
COSINE = "mean cosine of states"
TEXTS_AT_ONCE = 64
SIGNIFICANT = 0.05


class Asked(NamedTuple):
    """A text and what a program has found about it."""

    example: Example
    words: list[str]
    """The words that the model reads: those after the largest length are cut."""
    found: Any
    """A pytree of host arrays, the row of the text; arrays over tokens are as long as the batch is wide."""
    record: dict[str, Any]
    """The prediction, readable."""


Program: TypeAlias = Callable[[Batch, Array], tuple[Any, Any]]
"""From a batch, and a random key a text [B], to predictions and findings: two pytrees of arrays [B ...]."""


class Measured(NamedTuple):
    """A text and what its words matter."""

    example: Example
    words: list[str]
    """The words that the model reads: those after the largest length are cut."""
    output: Float[np.ndarray, " K"]
    """The prediction: a probability a class or tag, or one number."""
    measures: dict[str, Float[np.ndarray, " T"]]
    """A number a word: `attention` and other weights of the pooling, and `gradient`."""
    cosine: float
    """The mean cosine of the states of two words."""
    record: dict[str, Any]
    """The prediction, readable."""


def asked(
    trained: Trained, examples: Iterable[Example], shortest: int, program: Program, seed: int = 0
) -> Iterator[list[Asked]]:
    """Yield texts of at least `shortest` words with what a program finds about them, some at a time.

    The random key of a text depends on the seed and on how many such texts came before it.
    """
    key_of = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))
    codec, rest, start = _codec(trained), iter(examples), 0
    while some := list(islice(rest, TEXTS_AT_ONCE)):
        cut = [(example, codec.words(example.text)) for example in some]
        long = [(example, words) for example, words in cut if len(words) >= shortest]
        rows: list[tuple[Any, dict[str, Any]]] = []
        for batch in codec.encode(words for _, words in long):
            numbers = np.arange(len(batch.weights)) + start + len(rows)
            found = jax.device_get(program(batch, key_of(numbers)))
            predictions, found = jax.tree.map(itemgetter(slice(int(batch.weights.sum()))), found)
            records = trained.objective.records(predictions, trained.codec)
            rows += [(jax.tree.map(itemgetter(at), found), record) for at, record in enumerate(records)]
        start += len(rows)
        yield [Asked(*text, *row) for text, row in zip(long, rows, strict=True)]


def measured(trained: Trained, examples: Iterable[Example], shortest: int) -> Iterator[list[Measured]]:
    """Yield texts of at least `shortest` words with the weights of their words and the gradient, some at a time.

    The gradient importance of word i is |dy/ds_i| where s_i = 1 is a factor before its vector x_i: |x_i . dy/dx_i|, the
    derivative with respect to the word's one-hot vector. The attention is detached; y is the probability of the most
    probable class, or the number that is predicted.
    """
    graph, state = nnx.split(trained.objective)
    for texts in asked(trained, examples, shortest, lambda batch, _: _measure(graph, state, batch)):
        yield [
            Measured(
                text.example,
                text.words,
                text.found["output"],
                {name: x[: len(text.words)] for name, x in text.found["measures"].items()},
                float(text.found["cosine"]),
                text.record,
            )
            for text in texts
        ]


def without_each_word(trained: Trained, texts: Sequence[Measured]) -> list[Float[np.ndarray, " T"]]:
    """Return for every word of the texts how far the output moves when the text is encoded again without the word.

    The distance is the total variation, half the sum of absolute differences, or the absolute difference of one number.
    """
    if not texts:
        return []
    shortened = (text.words[:i] + text.words[i + 1 :] for text in texts for i in range(len(text.words)))
    others = np.concatenate(
        [
            np.asarray(output_of(trained.objective, found))[: int(batch.weights.sum())]
            for batch, found in trained.outputs(shortened)
        ]
    )
    lengths = [len(text.words) for text in texts]
    whole = np.repeat([text.output for text in texts], lengths, axis=0)
    changes = np.asarray(total_variation(jnp.asarray(whole), jnp.asarray(others)))
    return np.split(changes, np.cumsum(lengths)[:-1])


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
            **told(text),
            "words": {name: values.tolist() for name, values in measures.items()},
            "tau": {name: dict(zip(("tau", "p"), taus[name][at], strict=True)) for name in names},
        }
        for at, (text, measures) in enumerate(texts)
    ]
    return Findings(table, facts([text.cosine for text, _ in texts]), examples)


def told(text: Asked | Measured) -> dict[str, Any]:
    """Return the fields with which the findings on a text begin: its words, its target and the prediction."""
    return {"text": " ".join(text.words), "target": text.example.target, "prediction": text.record}


def largest_weights(texts: Sequence[Asked]) -> dict[str, Float[np.ndarray, " N"]]:
    """Return the largest weight of a word in every text, by the name of the weights that a program has found."""
    names = texts[0].found["weights"] if texts else ()
    return {name: np.array([text.found["weights"][name].max() for text in texts]) for name in names}


def facts(cosines: Sequence[float]) -> dict[str, Any]:
    """Return the number of texts, and their mean cosine of the states of two words, where there are texts."""
    return {"texts": len(cosines)} | ({COSINE: float(np.mean(cosines))} if cosines else {})


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
def _measure(graph: Any, state: nnx.State, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """Return predictions, and output, measures of the words and the cosine of their states, of a batch."""

    def largest(scale: Float[Array, "B T"]) -> tuple[Array, Any]:
        objective = nnx.merge(graph, state)
        objective.set_attributes(detached=True, scale=Scale(scale), raise_if_not_found=False)
        outputs = objective(batch)
        output = output_of(objective, outputs)
        cosine = cosine_of_states(outputs["states"], outputs["mask"])
        return output.max(axis=-1).sum(), (output, weights_of(objective, outputs), cosine, objective.predict(outputs))

    gradient, (output, weights, cosine, predictions) = jax.grad(largest, has_aux=True)(jnp.ones(batch.mask.shape))
    measures = {**weights, GRADIENT: jnp.abs(gradient)}
    return predictions, {"output": output, "measures": measures, "cosine": cosine}


def weights_of(objective: Objective, outputs: Outputs) -> dict[str, Float[Array, "B T"]]:
    """Return what each token weighs in the pooling, by name; heads and features are averaged."""
    return {name: by_token(x) for name, x in objective.weights(outputs).items()}


def cosine_of_states(states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, " B"]:
    """Return the mean cosine of the states of two different tokens of a text; 0 where there are not two.

    Near 1 all states say the same, and the output hardly depends on which of them is attended to. Mohankumar et al.
    (ACL 2020), whose conicity takes the cosines with the mean state, explain so why attention can be exchanged.
    """
    unit = states / jnp.maximum(jnp.linalg.norm(states, axis=-1, keepdims=True), 1e-12)
    unit = zero_padding(unit.astype(jnp.float32), mask)
    pairs = jnp.square(unit.sum(axis=1)).sum(axis=-1) - jnp.square(unit).sum(axis=(1, 2))
    count = mask.sum(axis=1)
    return pairs / jnp.maximum(count * (count - 1), 1)


def scores_of(objective: Any, outputs: Outputs) -> Float[Array, "B T *H"]:
    """Return the scores of attention, or raise UsageError where there are none that others could take the place of."""
    pooler: Any = getattr(objective, "pooler", None)
    scores = pooler.scores(outputs["states"], outputs["mask"]) if hasattr(pooler, "scores") else None
    if scores is None or not hasattr(objective, "with_scores"):
        raise UsageError("the analysis needs a pooling by scores of the words, as attention has; this run's has none.")
    return scores


def _codec(trained: Trained) -> TextCodec:
    """Return what turns texts into batches, or raise UsageError where words have no measure."""
    if not isinstance(trained.codec, TextCodec):
        raise UsageError(f"the analysis needs a task whose examples are texts, which {trained.config.task} is not.")
    if trained.config.encode.reads_sentences:
        raise UsageError(f"the analysis needs one state a word, but {trained.config.encoder} has one a sentence.")
    if not trained.objective.pools:
        raise UsageError(f"the analysis needs a pooling, which the objective {trained.config.objective} has not.")
    return trained.codec
