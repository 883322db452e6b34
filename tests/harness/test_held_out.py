"""Training texts that are set aside for the exponent: which ones, who learns from them, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.data.corpus import TextBatch
from experiments.run import held_out
from experiments.run.config import parse_args
from experiments.run.step import leaf_names
from experiments.train import main
from tests.harness.conftest import TINY, Toy
from tests.harness.tiny import model_of, prepare


def config_of(share: float, *more: str):
    return parse_args([*TINY, "--head.dropout", "0", "--encode.dropout", "0", "--encode.word-dropout", "0",
                       "--optim.held-out", str(share), *more])  # fmt: skip


def only(batch: TextBatch, rows: np.ndarray) -> TextBatch:
    """The batch of these rows alone."""
    return jax.tree.map(lambda x: jnp.asarray(x[rows]), batch)


def norms(prepared, batch: TextBatch) -> dict[str, float]:
    """The norm of the gradient of every parameter, from the mean loss of a batch."""
    state = nnx.state(prepared, nnx.Param)
    graph, _, rest = nnx.split(prepared, nnx.Param, ...)

    def loss_of(parameters):
        logits = nnx.merge(graph, parameters, rest)(batch)["logits"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

    leaves = jax.tree.leaves(jax.jit(jax.grad(loss_of))(state))
    return dict(zip(leaf_names(state), (float(np.linalg.norm(leaf)) for leaf in leaves), strict=True))


@pytest.mark.slow
def test_the_exponent_learns_from_texts_that_nothing_else_learns_from():
    config = config_of(0.4)
    task = Toy(config.data)
    prepared = prepare(config, task)
    step = next(i for i in range(task.steps_per_epoch) if (task.train_batch(0, i).weights > 0).all())
    batch, rows = task.train_batch(0, step), task.train_rows(0, step)
    held = np.array([held_out.is_held_out(0.4, 0, row) for row in rows])
    assert 0 < held.sum() < len(held)
    model = prepared.programs.objective(prepared.state.parameters)
    of_the_rest, of_held = norms(model, only(batch, ~held)), norms(model, only(batch, held))
    before = leaf_names(prepared.state.parameters)
    marks = np.pad(held, (0, len(batch.weights) - len(held))).astype(np.float32)
    _, report = prepared.train(prepared.state, batch, marks)
    for name, norm in zip(before, report.norms, strict=True):
        wanted = (of_held if name.endswith("rho") else of_the_rest)[name]
        np.testing.assert_allclose(float(norm), wanted, rtol=2e-4, atol=1e-7, err_msg=name)
    assert any(abs(of_held[name] - of_the_rest[name]) > 0.01 * of_held[name] for name in of_held if "rho" in name)


def test_a_share_of_all_texts_is_set_aside_and_in_every_epoch_the_same():
    config = config_of(0.25)
    task = Toy(config.data)
    epochs = []
    for epoch in range(2):
        chosen = set()
        for step in range(epoch * task.steps_per_epoch, (epoch + 1) * task.steps_per_epoch):
            batch, rows = task.train_batch(config.seed, step), task.train_rows(config.seed, step)
            marks = held_out.rows_of(task, config, step, len(batch.weights))
            assert marks.shape == batch.weights.shape
            assert not marks[batch.weights == 0].any()
            chosen |= {row for row, mark in zip(rows, marks, strict=False) if mark}
        epochs.append(chosen)
    texts = len(task.splits["train"])
    assert epochs[0] == epochs[1]
    assert abs(len(epochs[0]) / texts - 0.25) < 4 * (0.25 * 0.75 / texts) ** 0.5
    assert held_out.facts(task, config) == {"held_out": len(epochs[0])}
    other = dataclasses.replace(config, seed=1)
    assert {row for row in range(texts) if held_out.is_held_out(0.25, other.seed, row)} != epochs[0]


@pytest.mark.slow
def test_a_step_computes_little_more():
    """Of the second gradient only the part behind the encoder is computed; the way forward is the same."""
    flops = {}
    for share in (0.0, 0.4):
        config = config_of(share, "--encoder", "cnn")
        task = Toy(config.data)
        prepared = prepare(config, task)
        batch = task.train_batch(0, 0)
        prepared.train(prepared.state, batch, held_out.rows_of(task, config, 0, len(batch.weights)))
        (program,) = prepared.programs.train._programs.values()
        flops[share] = program.cost_analysis()["flops"]
    assert flops[0.0] < flops[0.4] < 1.1 * flops[0.0]


def test_without_a_share_nothing_is_set_aside():
    config = config_of(0)
    task = Toy(config.data)
    assert held_out.rows_of(task, config, 0, 8) is None
    assert held_out.facts(task, config) == {}
    held_out.check(task, config, nnx.state(model_of("bag", "mean"), nnx.Param))


@pytest.mark.slow
def test_a_run_states_how_many_texts_it_has_set_aside(tmp_path):
    assert main([*TINY, "--epochs", "1", "--optim.held-out", "0.2", "--out", str(tmp_path / "run")]) == 0
    data = json.loads((tmp_path / "run" / "summary.json").read_text())["data"]
    assert 0 < data["held_out"] < data["train"]["texts"] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optim.held-out", "0.1", "--pooler", "mean"], "no exponent is trained"),
        (["--optim.held-out", "0.1", "--pool.exponent", "fixed"], "no exponent is trained"),
        (["--optim.held-out", "0.000001"], "sets none of the training texts aside"),
        (["--optim.held-out", "0.6"], "[0, 0.5]"),
    ],
)
def test_what_cannot_be_set_aside_is_refused(one_line, tmp_path, options, message):
    one_line(main, [*TINY, *options, "--out", str(tmp_path / "run")], 2, message)
    assert not (tmp_path / "run").exists()
