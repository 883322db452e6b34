"""What validations log, stopping early, the moving average: against hand arithmetic and finite differences."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.layers.text_model import is_exponent
from experiments.run import optimiser
from experiments.run.clock import Clock
from experiments.run.config import parse_args
from experiments.run.diagnostics import Diagnostics
from experiments.run.optimiser import OptimOptions
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness.conftest import TINY
from tests.harness.tiny import prepare


def records_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


MASK = jnp.array([[True, True], [True, False], [False, False], [True, True]])
WEIGHTS = jnp.array([1.0, 1, 1, 0])


def test_entropy_and_norm_are_means_over_texts_with_words():
    """Row 0: weights 1/4, 3/4; row 1: one word; row 2 is empty; row 3 only fills the batch. Padding holds NaN."""
    attention = jnp.array([[0.25, 0.75], [1.0, jnp.nan], [jnp.nan, jnp.nan], [0.5, 0.5]])
    pooled = jnp.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [9.0, 9.0]])
    sums = Diagnostics.of({"pooled": pooled, "attention": attention, "mask": MASK}, WEIGHTS, [])
    numbers = (sums + sums).compute()
    by_hand = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2
    assert numbers == pytest.approx({"pooled_norm": (5 + 1) / 2, "attention_entropy": by_hand})
    heads = jnp.stack([attention, jnp.where(MASK, 0.5, jnp.nan)], axis=-1)
    shown = {"pooled": pooled, "attention": heads, "mask": MASK}
    of_heads = Diagnostics.of(shown, WEIGHTS, []).compute()["attention_entropy"]
    second = (2 * 0.5 * np.log(2) + 0.5 * np.log(2)) / 2  # row 1 has one word, here with weight 1/2
    assert of_heads == pytest.approx((by_hand + second) / 2)


def test_a_pooler_without_attention_has_no_entropy():
    assert Diagnostics.of({"pooled": jnp.ones((4, 2)), "mask": MASK}, WEIGHTS, []).compute().keys() == {"pooled_norm"}


@pytest.mark.parametrize("pool", ["--pool.per layer", "--pool.per feature"])
def test_the_gradient_of_rho_is_that_of_the_validation_loss(pool):
    config = parse_args([*TINY, "--data.buckets", "1", *pool.split()])
    task = TASKS["toy"](config.data)
    prepared = prepare(config, task)
    state = prepared.state
    measured = prepared.evaluate(state.parameters, task, "validation")

    def loss(shift):
        parameters = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf + shift if is_exponent(path) else leaf, state.parameters
        )
        return prepared.evaluate(parameters, task, "validation")["loss"]

    slope = (loss(0.02) - loss(-0.02)) / 0.04
    if "layer" in pool:
        assert measured["rho_gradient"] == pytest.approx(abs(slope), rel=0.05)
    else:  # the slope along (1, ..., 1) is at most sqrt(D) times the norm
        assert 0 < abs(slope) <= 4 * measured["rho_gradient"] * 1.05


@pytest.mark.slow
def test_patience_stops_early_and_the_best_is_tested(tmp_path):
    line = [*TINY, "--pooler", "mean", "--epochs", "40", "--patience", "2", "--out", str(tmp_path / "run")]
    assert main(line) == 0
    records, summary = records_of(tmp_path / "run"), json.loads((tmp_path / "run" / "summary.json").read_text())
    scores = [record["accuracy"] for record in records]
    assert len(records) < 41
    assert scores.index(max(scores)) == len(scores) - 3
    assert summary["steps"] == records[-1]["step"]
    assert summary["validation"] == records[-3]


def test_the_average_follows_its_recursion_and_is_what_is_tested():
    config = parse_args([*TINY, "--pooler", "mean", "--optim.average", "0.3"])
    task = TASKS["toy"](config.data)
    prepared = prepare(config, task)
    state = prepared.state
    average = jax.tree.map(np.asarray, state.parameters)
    for step, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]):
        state, _ = prepared.train(state, task.train_batch(0, step))
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), average, state.parameters)
    for mine, theirs in zip(jax.tree.leaves(average), jax.tree.leaves(state.tested), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert optimiser.average(OptimOptions(), state.parameters, None, jnp.int32(3)) is None


@pytest.mark.slow
def test_tensorboard_holds_the_records(tmp_path):
    line = [*TINY, "--pooler", "attention", "--epochs", "2", "--tensorboard", "--out", str(tmp_path / "run")]
    assert main(line) == 0
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    written = {}
    content = file.read_bytes()
    while content:  # length, its checksum, event, its checksum
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        written.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
        content = content[16 + size :]
    records = records_of(tmp_path / "run")
    for name in ("accuracy", "loss", "attention_entropy", "pooled_norm", "train_loss"):
        expected = {record["step"]: record[name] for record in records if record[name] is not None}
        assert {step: value for (tag, step), value in written.items() if tag == name} == pytest.approx(expected)


def test_every_second_has_one_name(monkeypatch):
    ticks = iter([0.0, 1.0, 3.0, 7.0, 100.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock.measure("outer"), clock.measure("inner"):
        pass
    with clock.measure("outer"):
        pass
    assert clock.seconds == {"outer": 1.0 + 4.0 + 1.0, "inner": 2.0}
    clock.move("outer", "inner", 2.0)
    assert clock.seconds == {"outer": 4.0, "inner": 4.0}


def test_accumulated_gradients_are_one_update_by_their_mean():
    """Three batches make a step of the schedule of a third of the length; in between nothing moves."""
    options = OptimOptions(warmup=0.0, weight_decay=0.0)
    parameters = {"w": jnp.array([1.0, -2.0])}
    gradients = [{"w": jnp.array(g)} for g in ([3.0, 0.0], [0.0, 0.3], [-1.5, 0.3])] * 2
    many = optimiser.optimizer(dataclasses.replace(options, accumulate=3), parameters, steps=6)
    one = optimiser.optimizer(options, parameters, steps=2)
    state, expected_state, expected = many.init(parameters), one.init(parameters), parameters
    for number, gradient in enumerate(gradients, start=1):
        before = parameters
        updates, state = many.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        if number % 3:
            np.testing.assert_array_equal(parameters["w"], before["w"])
            continue
        updates, expected_state = one.update({"w": jnp.array([0.5, 0.2])}, expected_state, expected)
        expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(parameters["w"], expected["w"], rtol=1e-6)
        assert np.abs(np.asarray(parameters["w"]) - np.asarray(before["w"])).max() > 1e-4
