"""What every objective and every task must do, row by row of their tables; `test_parts.py` does it for parts."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.data.rating_batches import RatingBatch
from experiments.data.rating_task import RatingTask
from experiments.data.targets import Classes, Groups, Numbers, Tags
from experiments.data.text import Example
from experiments.data.text_task import TextCodec, TextTask
from experiments.data.titles import Titles
from experiments.data.triples import COLUMNS, NOWHERE, Facts, Mention, TripleBatch, Triples
from experiments.encoders import ENCODERS
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.run import build
from experiments.run.config import default_config, from_json, to_json
from experiments.run.diagnostics import Evaluation
from experiments.run.guide import Guide, GuidedBatch
from experiments.run.step import total_loss
from experiments.tasks import TASKS
from tests.harness.tiny import MASK, TOKENS, VOCABULARY, batch_of, by_sentence, each_objective, tiny

EACH_OBJECTIVE = each_objective(sorted(OBJECTIVES))
EACH_SUM = each_objective(sorted(name for name, kind in OBJECTIVES.items() if not kind.contrasts))
TEXT_TASKS = sorted(name for name, kind in TASKS.items() if issubclass(kind, TextTask))
EACH_TASK = pytest.mark.parametrize("name", TEXT_TASKS)
SIZES = {"words": VOCABULARY, "classes": 4, "tags": 3, "numbers": 1, "mean": 2.0, "scale": 3.0, "groups": 3}
SIZES |= {"predicates": 2, "kinds": 2, "title": 3}
SIZES |= {"review_words": VOCABULARY, "users": 4, "items": 4, "ratings": 4}
NOTHING = [NOWHERE] * COLUMNS
TARGETS = {
    "classes": np.array([1, 0, 3, 2], np.int32),
    "tags": np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], np.float32),
    "numbers": np.array([1.0, -2.0, 5.0, 2.5], np.float32),
    "groups": np.array([1, 0, 1, 2], np.int32),
    "predicates": np.array(
        [
            [[0, 1, 0, 1, 3, 4, 1], [0, 1, 0, 0, 2, 2, 0], [2, 2, 0, *NOTHING[:4]]],
            [NOTHING] * 3,
            [[1, 2, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2, 1], NOTHING],
            [NOTHING] * 3,
        ],
        np.int32,
    ),
    "ratings": np.array([1.0, 4.0, 5.0, 2.5], np.float32),
    "title": np.array([[5, 9, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0], [2, 3, 1, 4, 4, 0], [0, 0, 0, 0, 0, 0]], np.int32),
}
VALUES = {Classes: ["x", "y"], Tags: [("a", "b"), ("b",), ()], Numbers: [1.0, 2.0, 4.0]}
VALUES[Titles] = ["w1 w3", "W2!", "w1 w2 w3"]
VALUES[Triples] = [
    Facts((Mention("w1", 0, 0, "x"), Mention("w2", 1, 1, "y")), ((0, "p", 1), (1, "q", 0))),
    Facts((Mention("w1", 0, 0, "x"),), ()),
]
TEXTS_A_GROUP = 3
_SHARES = np.where(MASK, np.random.default_rng(5).uniform(size=MASK.shape), 0)
GUIDE = (
    np.float32(_SHARES / np.maximum(_SHARES.sum(axis=1, keepdims=True), 1e-9)),
    np.random.default_rng(6).dirichlet(np.ones(4), len(MASK)).astype(np.float32),
)


def objective_of(name: str):
    """A tiny objective of a causal encoder, so that it fits all."""
    config = default_config(encoder="gru", objective=name)
    pool = config.pool if config.pooler == "none" else tiny(config.pool)
    return build.objective(dataclasses.replace(config, encode=tiny(config.encode), pool=pool), SIZES)[0]


def data_of(name: str, tokens=TOKENS, mask=MASK):
    kind = next((need for need in OBJECTIVES[name].needs if need in TARGETS), "classes")
    if kind == "ratings":
        return jax.device_put(rating_batch(tokens, mask))
    batch = batch_of("gru", tokens, mask)._replace(targets=TARGETS[kind])
    if kind == "predicates":
        forms = np.where(mask, np.arange(mask.shape[1]), NOWHERE)
        batch = TripleBatch(
            *batch[:4], shapes=np.where(mask, 1 + tokens % 2, 0), forms=forms, known=TARGETS[kind][:, 1:]
        )
    if OBJECTIVES[name].guided:
        batch = GuidedBatch(*batch[:4], Guide(*GUIDE))
    return jax.device_put(batch)


def rating_batch(tokens, mask) -> RatingBatch:
    """Every text, and one of other words, as the reviews of a user and of an item, with sentences of two words."""
    others = np.where(mask, VOCABULARY + 1 - tokens, 0)
    tokens = np.stack([by_sentence(tokens), by_sentence(others)], axis=1).astype(np.int32)
    mask = np.stack([by_sentence(mask)] * 2, axis=1)
    users, items = np.array([1, 2, 3, 0], np.int32), np.array([3, 0, 1, 2], np.int32)
    return RatingBatch(users, items, tokens, mask, tokens, mask, TARGETS["ratings"], np.ones(4, np.float32))


def evaluated(objective, batch):
    """The outputs of a batch, and all that a validation adds up."""

    @jax.jit
    def read(batch):
        outputs = objective(batch)
        return outputs, (objective.terms(outputs, batch), objective.metrics(outputs, batch))

    outputs, added = read(batch)
    return outputs, jax.device_get(added)


def numbers(terms, metrics) -> dict[str, float]:
    return {name: float(term.sum / term.weight) for name, term in terms.items()} | metrics.compute()


@EACH_OBJECTIVE
def test_it_names_what_it_needs_and_shows(name):
    objective = objective_of(name)
    terms, metrics = evaluated(objective, data_of(name))[1]
    found = metrics.compute()
    chosen, mode = objective.chosen_by
    assert chosen in found
    assert mode in ("max", "min")
    assert set(objective.shown) <= found.keys()
    assert chosen in objective.shown
    assert set(objective.needs) <= SIZES.keys()
    assert objective.term_weights.keys() <= terms.keys()


@EACH_OBJECTIVE
def test_rows_of_weight_zero_and_padding_count_for_nothing(name):
    objective, batch = objective_of(name), data_of(name)
    weights = np.array([1, 1, 0, 0], np.float32)
    garbage = np.where(MASK, TOKENS, np.random.default_rng(1).integers(2, VOCABULARY, MASK.shape))
    garbage[2:] = 7
    other = data_of(name, garbage)._replace(weights=weights)
    expected = numbers(*evaluated(objective, batch._replace(weights=weights))[1])
    assert numbers(*evaluated(objective, other)[1]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@EACH_SUM
def test_the_parts_of_a_batch_add_up_to_the_whole(name):
    objective, batch = objective_of(name), data_of(name)
    whole, halves = (
        [evaluated(objective, jax.tree.map(lambda leaf, part=part: leaf[part], batch))[1] for part in parts]
        for parts in ([slice(None)], [slice(0, 1), slice(1, 4)])
    )
    (one, other) = (Evaluation(terms, metrics, {}, None, None) for terms, metrics in halves)
    added = {k: one.terms[k] + other.terms[k] for k in one.terms}, one.metrics + other.metrics
    assert numbers(*added) == pytest.approx(numbers(*whole[0]), rel=1e-5, abs=1e-6)


@EACH_OBJECTIVE
def test_gradients_are_finite_with_an_empty_text_and_reach_all_parameters(name):
    graph, parameters, rest = nnx.split(objective_of(name), nnx.Param, ...)
    batch = data_of(name)

    @jax.jit
    def gradient(parameters):
        def loss(parameters):
            objective = nnx.merge(graph, parameters, rest)
            return total_loss(objective, objective.terms(objective(batch, nnx.Rngs(dropout=0)), batch))

        return jax.grad(loss)(parameters)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(parameters)):
        assert np.isfinite(np.asarray(leaf)).all(), path
        assert leaf.ndim < 2 or np.asarray(leaf).any(), path


@EACH_OBJECTIVE
def test_predictions_are_records_of_every_text(name):
    objective = objective_of(name)
    outputs, _ = evaluated(objective, data_of(name))
    predictions = jax.device_get(objective.predict(outputs))
    codec = type("Codec", (), {"targets": type("Targets", (), dict.fromkeys(("names", "predicates", "kinds"), "abcd"))})
    records = objective.records(predictions, codec)
    assert len(records) == len(TOKENS)
    assert json.loads(json.dumps(records)) == records
    assert all(record.keys() == records[0].keys() for record in records)


@EACH_OBJECTIVE
def test_noise_comes_only_from_the_key(name):
    objective, batch = objective_of(name), data_of(name)

    @jax.jit
    def loss(key=None):
        rngs = None if key is None else nnx.Rngs(dropout=key)
        return total_loss(objective, objective.terms(objective(batch, rngs), batch))

    without, one, same, other = loss(), *map(loss, map(jax.random.key, (1, 1, 2)))
    assert without != one == same != other


@EACH_OBJECTIVE
def test_a_configuration_survives_json(name):
    config = default_config(encoder="gru", objective=name)
    assert from_json(to_json(config)) == config


def target_of(kind, n: int):
    """The target of a text, of several values a split; a group is in one split."""
    if kind is Groups:
        return f"{n % 3} {n // 3 // TEXTS_A_GROUP}"
    return VALUES[kind][n // 3 % len(VALUES[kind])]


def task_of(name: str, **options) -> TextTask:
    """A task of a few texts of its own kind."""
    kind = TASKS[name]
    examples = [
        Example(
            " ".join(f"w{(n * k) % 7}" for k in range(1, n % 6 + 1)) + ". " + "w1 w2 " * (n % 3),
            target_of(kind.Targets, n),
            ("train", "validation", "test")[n % 3],
        )
        for n in range(36)
    ]
    given = {"batch_size": 4, "max_len": 8, "buckets": 2, "min_count": 1, **options}
    task = kind.__new__(kind)
    TextTask.__init__(task, dataclasses.replace(kind.Options(), **given), examples)
    return task


@EACH_TASK
def test_its_objective_fits_and_it_has_options(name):
    kind = TASKS[name]
    assert dataclasses.is_dataclass(kind.Options)
    assert set(OBJECTIVES[kind.objective].needs) <= task_of(name).codec.sizes.keys()
    assert default_config(task=name).objective == kind.objective


@EACH_TASK
@pytest.mark.parametrize("sentences", [False, True])
def test_batches_are_functions_of_seed_and_step_and_hold_every_text_once(name, sentences):
    task = task_of(name, sentences=sentences)
    steps = range(2 * task.steps_per_epoch)
    for step in steps:
        batch = task.train_batch(3, step)
        jax.tree.map(np.testing.assert_array_equal, batch, task.train_batch(3, step))
        assert batch.tokens.ndim == 2 + sentences
        assert not batch.mask[batch.weights == 0].any()
        assert len(task.train_rows(3, step)) == batch.weights.sum()
    for split, texts in (("train", 12), ("validation", 12), ("test", 12)):
        assert sum(batch.weights.sum() for batch in task.batches(split)) == texts
    seen = sorted(row for step in range(task.steps_per_epoch) for row in task.train_rows(3, step))
    assert seen == list(range(12))


@EACH_TASK
def test_its_codec_is_rebuilt_from_json_and_keeps_the_order(name):
    task = task_of(name)
    stored = json.loads(json.dumps(task.codec.to_json()))
    codec: TextCodec = type(task).codec_of(task.codec.options, stored)
    assert codec.sizes == task.codec.sizes
    texts = [f"w{n % 7}" for n in range(10)]
    batches = list(codec.encode(texts))
    assert [int(batch.weights.sum()) for batch in batches] == [4, 4, 2]
    tokens = np.concatenate([batch.tokens[batch.weights > 0, 0] for batch in batches])
    np.testing.assert_array_equal(tokens, [codec.vocabulary.encode([text])[0] for text in texts])


def test_tasks_are_of_texts_or_of_ratings():
    """`test_ratings.py` does for the second kind what is done here for the first."""
    others = TASKS.keys() - {*TEXT_TASKS, "toy"}
    assert {name for name, kind in TASKS.items() if issubclass(kind, RatingTask)} == others


def test_tables_name_their_rows_in_order():
    for table in (ENCODERS, POOLERS, OBJECTIVES):
        assert list(table) == sorted(table)
