"""What a trained model weighs in a text: the attention of each word, its share in the pooled vector, and its level."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from experiments.base.contracts import Batch, Objective, Outputs, Pooler
from experiments.base.errors import UsageError
from experiments.data.text import UNKNOWN
from experiments.data.text_task import TextCodec
from experiments.data.trees import Span, tree_of
from experiments.layers.masked import by_token
from experiments.run.importance import weights_of
from experiments.run.levels import has_levels, levels
from experiments.run.trained import Trained

ATTENTION, SHARE, LEVEL = "attention", "share", "level"
MOST_SCORES = 5


class Explained(NamedTuple):
    """A text as a model sees it."""

    units: list[str]
    """Its words, or its sentences where the encoder has a state for each of these."""
    known: list[bool]
    """Whether the vocabulary has the word, or some word of the sentence."""
    weights: dict[str, Float[np.ndarray, " T"]]
    """A number a unit: `attention`, where the pooler attends, and `share`, where there is one pooler, each with the sum
    1; `level N` of every layer N, where the encoder has levels."""
    record: dict[str, Any]
    """The prediction, readable."""
    scores: list[tuple[str, float]]
    """The classes or tags of the largest probabilities, the largest first; empty where a number is predicted."""
    trees: dict[int, list[Span]]
    """The constituents that the levels of a layer cut, as in the paper (`experiments.data.trees.tree_of`)."""


def explained(trained: Trained, texts: Iterable[str]) -> Iterator[Explained]:
    """Yield what a model makes of texts, in their order; a batch is in memory at a time.

    The attention is v, the weights by which powers of states are summed: softmax(p z) of a learned norm, softmax(z) of
    other attention; heads are averaged. The share of a word is its part of the sum behind each pooled feature,
    v_i h_i^p / sum_j v_j h_j^p, averaged over the features. A pooler without such a sum has |h_i . dr/dh_i| in place of
    it, with r the sum of the pooled vector and the attention held fixed, divided by the sum over the words.
    """
    codec = _codec(trained)
    graph, state = nnx.split(trained.objective)
    rest = iter(texts)
    while some := list(islice(rest, codec.options.batch_size)):
        (batch,) = codec.encode(some)
        weights, predictions = jax.device_get(_weigh(graph, state, batch))
        by_layer = levels(trained.objective, batch) if has_levels(trained.objective) else ()
        weights |= {f"{LEVEL} {layer}": found for layer, found in enumerate(by_layer, start=1)}
        predictions = jax.tree.map(lambda x: x[: len(some)], predictions)
        records = trained.objective.records(predictions, trained.codec)
        for row, text in enumerate(some):
            units, known = _units(codec, text, batch.mask[row])
            numbers = {name: x[row, : len(units)] for name, x in weights.items()}
            trees = {layer: tree_of(found[row, : len(units)], "paper") for layer, found in enumerate(by_layer, start=1)}
            yield Explained(units, known, numbers, records[row], _scores(codec, predictions, row), trees)


def exponent(trained: Trained) -> Float[np.ndarray, " P"] | None:
    """Return the exponents of the pooling, one or more; None where it has none."""
    p = trained.objective.p
    return None if p is None else np.ravel(np.asarray(p, np.float32))


@partial(jax.jit, static_argnums=0)
def _weigh(graph: Any, state: nnx.State, batch: Batch) -> tuple[dict[str, Array], Any]:
    """Return the weights of the units of a batch, none where there is not one pooler, and the predictions."""
    objective = nnx.merge(graph, state)
    objective.set_attributes(detached=True, raise_if_not_found=False)
    outputs = objective(batch)
    if not hasattr(objective, "pooler"):
        return {}, objective.predict(outputs)
    attention = attention_of(objective, outputs)
    share = shares(objective.pooler, outputs["states"], outputs["mask"])
    return {**({} if attention is None else {ATTENTION: attention}), SHARE: share}, objective.predict(outputs)


def attention_of(objective: Objective, outputs: Outputs) -> Float[Array, "B T"] | None:
    """Return the attention of every token, or sentence, as in `explained`; None where the pooler does not attend."""
    weights = weights_of(objective, outputs)
    return weights.get("effective", weights.get(ATTENTION))


def shares(pooler: Pooler, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Return the share of every state in the pooled vector, as in `explained`; the attention must be detached."""
    stated = pooler.weights(states, mask) if hasattr(pooler, "weights") else {}
    if "contribution" in stated:
        return by_token(stated["contribution"])
    return _moves(pooler, states, mask)


def _moves(pooler: Pooler, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Return |h_i . dr/dh_i|, r the sum of the pooled vector, divided by its sum over the tokens."""
    (slope,) = jax.grad(lambda states: pooler(states, mask)[0].astype(jnp.float32).sum(), argnums=(0,))(states)
    moves = jnp.where(mask, jnp.abs(states * slope).astype(jnp.float32).sum(axis=-1), 0)
    total = moves.sum(axis=1, keepdims=True)
    return moves / jnp.where(total > 0, total, 1)


def _units(codec: TextCodec, text: str, mask: Bool[np.ndarray, "T *W"]) -> tuple[list[str], list[bool]]:
    """Return what has a state each: the words of a text, or those of every row where rows are sentences."""
    words = codec.words(text)
    known = [number != UNKNOWN for number in codec.vocabulary.encode(words)]
    if mask.ndim == 1:
        return words, known
    counts = mask.sum(axis=1)
    ends = np.cumsum(counts[counts > 0])
    cuts = [slice(end - count, end) for end, count in zip(ends, counts[counts > 0], strict=True)]
    return [" ".join(words[cut]) for cut in cuts], [any(known[cut]) for cut in cuts]


def _scores(codec: TextCodec, predictions: Any, row: int) -> list[tuple[str, float]]:
    """Return the names of the largest probabilities with these."""
    names = getattr(codec.targets, "names", ())
    if not isinstance(predictions, np.ndarray) or predictions.shape[1:] != (len(names),):
        return []
    best = np.argsort(-predictions[row], kind="stable")[:MOST_SCORES]
    return [(names[index], float(predictions[row, index])) for index in best]


def _codec(trained: Trained) -> TextCodec:
    """Return what turns texts into batches, or raise UsageError where there are no words to explain."""
    if not isinstance(trained.codec, TextCodec):
        raise UsageError(f"the task {trained.config.task} has no texts to explain.")
    pooled = trained.objective.pools and hasattr(trained.objective, "pooler")
    if not pooled and not has_levels(trained.objective):
        objective, encoder = trained.config.objective, trained.config.encoder
        raise UsageError(f"the objective {objective} has not one pooling and the encoder {encoder} no levels to show.")
    return trained.codec
