"""Normalised matrices: against a singular value decomposition and formulas in float64, and as the state of a run."""

import dataclasses
import json
import operator
import os
import signal
from functools import reduce

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.layers.head import Head, HeadOptions
from experiments.layers.mutual_information import Critic
from experiments.layers.normalised import LINEAR, SpectralNorm, WeightNorm, unit
from experiments.objectives import OBJECTIVES
from experiments.objectives.classify import Classify
from experiments.run import build
from experiments.run.config import default_config, parse_args
from experiments.run.trained import load_run
from experiments.storage import checkpoints
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness.conftest import TINY, Toy
from tests.harness.test_conformance import SIZES
from tests.harness.test_resume import interrupt, result
from tests.harness.tiny import prepare, tiny

RANDOM = np.random.default_rng(0)
INPUTS = jnp.asarray(RANDOM.normal(size=(3, 6)), jnp.float32)
MATRICES = {
    "random": RANDOM.normal(size=(6, 4)),
    "tall": RANDOM.normal(size=(40, 3)),
    "of rank 1": np.outer(RANDOM.normal(size=6), RANDOM.normal(size=4)),
    "one output": RANDOM.normal(size=(6, 1)),
    "ones are orthogonal to the right singular vector": np.outer([3.0, 0, 0, 0], [1.0, -1, 1, -1])
    + np.outer([0, 0.5, 0, 0], np.ones(4)),
}


def of(kind, matrix):
    layer = kind(*matrix.shape, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.asarray(matrix, jnp.float32)
    return layer


def settled(layer):
    """The layer after 200 steps of the power iteration."""
    graph, state = nnx.split(layer)

    def step(_, state):
        layer = nnx.merge(graph, state, copy=True)
        layer.advance()
        return nnx.state(layer)

    return nnx.merge(graph, jax.jit(lambda state: jax.lax.fori_loop(0, 200, step, state))(state))


@pytest.mark.parametrize("name", MATRICES)
def test_the_largest_singular_value_is_that_of_numpy(name):
    layer, matrix = of(SpectralNorm, MATRICES[name]), MATRICES[name]
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    assert float(layer.largest()) <= largest * (1 + 1e-6), "an estimate is never too large"
    layer = settled(layer)
    np.testing.assert_allclose(layer.largest(), largest, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(layer.matrix(), compute_uv=False)[0], 1, rtol=1e-5)


def test_a_new_layer_is_near_its_largest_singular_value():
    for seed in range(3):
        layer = SpectralNorm(64, 32, rngs=nnx.Rngs(seed))
        largest = np.linalg.svd(np.asarray(layer.kernel[...], float), compute_uv=False)[0]
        assert 0.9 * largest < float(layer.largest()) <= largest * (1 + 1e-6)


def test_a_start_of_ones_may_not_find_it():
    """Why the start is random: ones that are orthogonal to the right singular vector stay so."""
    matrix = MATRICES["ones are orthogonal to the right singular vector"]
    layer = of(SpectralNorm, matrix)
    layer.direction[...] = jnp.full(4, 0.5)
    assert float(settled(layer).largest()) < 0.5 * np.linalg.svd(matrix, compute_uv=False)[0]


def test_the_gradient_of_the_largest_singular_value():
    """With the singular vectors v and u, ds/dW is v u^T."""
    layer = settled(of(SpectralNorm, MATRICES["random"]))
    graph, parameters, rest = nnx.split(layer, nnx.Param, ...)
    found = jax.grad(lambda state: nnx.merge(graph, state, rest).largest())(parameters)["kernel"][...]
    left, _, right = np.linalg.svd(MATRICES["random"], full_matrices=False)
    np.testing.assert_allclose(found, np.outer(left[:, 0], right[0]), rtol=1e-3, atol=1e-4)


def weight_norm(kernel, length):
    """g W / |W| in float64."""
    return length * kernel / np.sqrt((kernel**2).sum(axis=0))


def spectral_norm(left, right):
    """W -> W / v W u in float64; v and u are constants of the gradient."""
    return lambda kernel: kernel / (left @ kernel @ right)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_value_and_gradients_against_differences_in_float64(kind):
    layer = of(LINEAR[kind], MATRICES["random"])
    layer.bias[...] = jnp.arange(4.0)
    if kind == "weight":
        layer.length[...] = jnp.array([0.5, -2.0, 3.0, 1.0])
        normalised = weight_norm
    else:
        right = np.asarray(layer.direction[...], float)
        image = np.asarray(layer.kernel[...], float) @ right
        normalised = spectral_norm(image / np.linalg.norm(image), right)
    cotangent = RANDOM.normal(size=(3, 4))
    graph, parameters, rest = nnx.split(layer, nnx.Param, ...)
    found = jax.grad(lambda state: (cotangent * nnx.merge(graph, state, rest)(INPUTS)).sum())(parameters)
    arrays = {name: np.asarray(leaf[...], float) for name, leaf in parameters.items()}

    def outputs(bias, **arrays):
        return np.asarray(INPUTS, float) @ normalised(**arrays) + bias

    np.testing.assert_allclose(layer(INPUTS), outputs(**arrays), rtol=1e-5, atol=1e-5)
    for name, array in arrays.items():
        for place in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[place] = 1e-6
            ahead, behind = (outputs(**arrays | {name: array + way * step}) for way in (1, -1))
            slope = (cotangent * (ahead - behind)).sum() / 2e-6
            np.testing.assert_allclose(found[name][...][place], slope, rtol=1e-3, atol=1e-4)


def test_weight_norm_begins_as_it_would_without():
    layer = WeightNorm(6, 4, rngs=nnx.Rngs(3))
    plain = nnx.Linear(6, 4, rngs=nnx.Rngs(3))
    np.testing.assert_array_equal(layer.kernel[...], plain.kernel[...])
    np.testing.assert_allclose(layer(INPUTS), plain(INPUTS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_zeros_stay_zeros_with_finite_gradients(kind):
    layer = of(LINEAR[kind], np.zeros((6, 4)))
    graph, parameters, rest = nnx.split(layer, nnx.Param, ...)
    value, gradient = jax.value_and_grad(lambda state: nnx.merge(graph, state, rest)(INPUTS).sum())(parameters)
    assert value == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(unit(jnp.zeros(3)), 0)


@pytest.mark.skipif(flax.__version__ != "0.12.8", reason="seen in flax 0.12.8; another version may have mended it")
def test_what_keeps_the_modules_of_flax_from_being_used():
    """Once flax has mended it, `experiments.layers.normalised` can give way to its modules."""
    for made in (nnx.SpectralNorm, nnx.WeightNorm):
        layer = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
        before = np.asarray(layer.kernel[...])
        options = {"update_stats": False} if made is nnx.SpectralNorm else {}
        wrapped = made(layer, rngs=nnx.Rngs(0), **options)
        wrapped(INPUTS)
        assert not np.array_equal(layer.kernel[...], before), "a question has changed the parameters"
    shapes = {leaf.shape for leaf in jax.tree.leaves(nnx.state(wrapped, nnx.Param))}
    assert shapes == {(6, 4), (4,)}, "kernel and bias"
    assert len(jax.tree.leaves(nnx.state(wrapped))) == 3, "the lengths are there, but an optimiser does not see them"


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_a_question_changes_nothing_of_a_layer(kind):
    head = Head(HeadOptions(normalise=kind), 6, 4, rngs=nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.state(head))
    first, again = head(INPUTS), head(INPUTS)
    np.testing.assert_array_equal(first, again)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(head), before)


@pytest.mark.parametrize(
    ("name", "layers"), [("classify", 1), ("regress", 1), ("multilabel", 1), ("mutual_information", 8)]
)
def test_objectives_have_normalised_layers(name, layers):
    config = default_config(encoder="bag", objective=name)
    head = dataclasses.replace(config.head, normalise="weight")
    config = dataclasses.replace(config, encode=tiny(config.encode), pool=tiny(config.pool), head=head)
    model, _ = build.objective(config, SIZES)
    assert sum(isinstance(node, WeightNorm) for _, node in nnx.iter_graph(model)) == layers


def test_critics_are_normalised_in_every_matrix():
    critic = Critic(5, 6, 7, "spectral", rngs=nnx.Rngs(0))
    layers = [node for _, node in nnx.iter_graph(critic) if isinstance(node, SpectralNorm)]
    for layer in layers:
        assert np.linalg.svd(settled(layer).matrix(), compute_uv=False)[0] == pytest.approx(1, rel=1e-4)
    assert sorted(layer.kernel[...].shape for layer in layers) == [(5, 7), (6, 7), (7, 7), (7, 7)]


LINE = [*TINY, "--pooler", "mean", "--data.buckets", "1", "--epochs", "2", "--head.normalise", "spectral"]
AVERAGED = [*LINE, "--optim.average", "0.9"]
DIRECTION = "head.linear.direction"


def direction(state):
    return np.asarray(state["head"]["linear"]["direction"][...])


def test_a_step_of_training_moves_the_direction_once_and_nothing_else_does():
    config = parse_args(AVERAGED)
    task = Toy(config.data)
    run = prepare(config, task)
    state = run.state
    for step in range(3):
        kernel = np.asarray(state.parameters["head"]["linear"]["kernel"][...], float)
        image = kernel.T @ (kernel @ direction(state.statistics))
        scores = [run.evaluate(state.tested, task, "validation") for _ in range(2)]
        assert scores[0] == scores[1], "a validation leaves no trace"
        state, report = run.train(state, task.train_batch(0, step))
        assert report.accepted
        np.testing.assert_allclose(direction(state.statistics), image / np.linalg.norm(image), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(direction(state.tested), direction(state.statistics))
    averaged, kernel = (tree["head"]["linear"]["kernel"][...] for tree in (state.average, state.parameters))
    np.testing.assert_array_equal(state.tested["head"]["linear"]["kernel"][...], averaged)
    assert not np.array_equal(averaged, kernel)
    before = direction(state.statistics)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, state.parameters)
    state, report = run.train(state._replace(parameters=broken), task.train_batch(0, 3))
    assert not report.accepted, "a step that is skipped does not move it"
    np.testing.assert_array_equal(direction(state.statistics), before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an unbroken run with a moving average."""
    folder = tmp_path_factory.mktemp("normalised") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        assert main([*AVERAGED, "--out", str(folder)]) == 0
    return folder


def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*AVERAGED, "--out", str(folder)]) == 75
    (saved,) = (folder / "checkpoints").iterdir()
    names = checkpoints.verify(saved)["arrays"]
    assert {f"0.statistics.{DIRECTION}.value", f"1.{DIRECTION}.value"} <= names.keys()
    assert main(["--resume", str(folder)]) == 0
    assert result(folder) == result(whole)


def test_the_folder_holds_the_direction_that_was_validated(whole):
    trained = load_run(whole)
    with np.load(whole / "parameters.npz") as arrays:
        np.testing.assert_array_equal(arrays[DIRECTION], trained.objective.head.linear.direction[...])
        trainable = sum(array.size for name, array in arrays.items() if name != DIRECTION)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["parameters"] == trainable, "what is not trained does not count"
    batches = [jax.device_put(batch) for batch in Toy(trained.config.data).batches("validation")]
    found = reduce(operator.add, [trained.objective.metrics(trained.objective(batch), batch) for batch in batches])
    assert found.compute() == pytest.approx({name: summary["validation"][name] for name in found.compute()})
    assert np.linalg.svd(trained.objective.head.linear.matrix(), compute_uv=False)[0] == pytest.approx(1, rel=0.05)


class Centred(Classify):
    """A classifier of pooled vectors that `nnx.BatchNorm` has normalised."""

    def __init__(self, options, sizes, parts, *, rngs):
        super().__init__(options, sizes, parts, rngs=rngs)
        self.norm = nnx.BatchNorm(self.pooler.features, momentum=0.75, rngs=rngs)

    def answer(self, outputs, rngs=None):
        return {**super().answer({**outputs, "pooled": self.norm(outputs["pooled"])}, rngs), "raw": outputs["pooled"]}


@pytest.mark.slow
def test_a_module_of_flax_keeps_its_statistics(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "centred", Centred)
    line = [*TINY, "--objective", "centred", "--pooler", "mean", "--encode.dropout", "0"]
    config = parse_args([*line, "--encode.word-dropout", "0"])
    task = Toy(config.data)
    run = prepare(config, task)
    batch = task.train_batch(0, 0)
    means = np.asarray(run.programs.objective(run.state.tested)(jax.device_put(batch))["raw"], float).mean(axis=0)
    state, _ = run.train(run.state, batch)
    np.testing.assert_allclose(state.statistics["norm"]["mean"][...], 0.25 * means, rtol=1e-4, atol=1e-6)
    assert run.evaluate(state.tested, task, "validation") == run.evaluate(state.tested, task, "validation")
