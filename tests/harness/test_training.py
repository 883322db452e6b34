"""The command from end to end on a small task: run folder, choice by validation, repeatability, failures."""

import json
import operator
import subprocess
import sys
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.base.errors import DataError, NonFiniteError, UsageError
from experiments.poolers import POOLERS
from experiments.poolers.simple import Mean
from experiments.run.environment import peak_memory
from experiments.run.journal import Journal, Rules
from experiments.run.trained import load_run
from experiments.storage.parameters import parse_parameters, save_parameters
from experiments.storage.run_folder import RunFolder
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness.conftest import TINY, Toy, toy_examples


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one run with the default pooler."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        assert main([*TINY, "--out", str(folder)]) == 0
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_run_folder_is_complete(finished):
    names = {
        ".lock",
        "config.json",
        "environment.json",
        "manifest.json",
        "metrics.jsonl",
        "parameters.npz",
        "summary.json",
        "training.pdf",
        "training.png",
        "vocabulary.json",
    }
    assert {path.name for path in finished.iterdir()} == names
    assert (finished / "training.png").read_bytes().startswith(b"\x89PNG")
    assert str(finished) == read(finished, "config.json")["out"]


def test_the_model_learns_and_the_exponent_moves(finished):
    summary = read(finished, "summary.json")
    assert summary["test"]["accuracy"] > 0.9
    assert summary["test"]["macro_f1"] > 0.9
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4]
    assert records[0]["p"] == pytest.approx(1.0)
    assert abs(records[-1]["p"] - 1.0) > 0.01
    assert records[-1]["train_loss"] < records[1]["train_loss"]


def test_the_summary_states_the_costs(finished):
    summary = read(finished, "summary.json")
    with np.load(finished / "parameters.npz") as arrays:
        assert summary["parameters"] == sum(array.size for array in arrays.values())
    assert summary["compilations"] == {"train": 2, "evaluate": 2}
    assert set(summary["seconds"]) == {
        *("start", "compile", "training", "input", "validation", "test", "other", "total")
    }
    assert summary["seconds"]["total"] == pytest.approx(sum(summary["seconds"].values()) / 2)
    assert summary["steps"] * summary["step_seconds"] == pytest.approx(
        summary["seconds"]["training"] + summary["seconds"]["input"]
    )
    assert 0 <= summary["input_share"] < 1
    assert 1e8 < summary["peak_memory_bytes"] < 1e11
    assert summary["tokens_per_second"] > 0
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["data"]["train"].pop("digest")
    assert summary["data"]["train"] == {"texts": 238, "truncated": 0, "empty": 0}
    assert summary["skipped_steps"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere getrusage begins anew in a child")
def test_the_peak_of_a_process_is_its_own():
    held = np.ones(2**26)  # 512 MiB
    code = "from experiments.run.environment import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1e7 < int(child.stdout) < held.nbytes < peak_memory()


def test_the_folder_alone_rebuilds_the_model(finished, monkeypatch):
    monkeypatch.setattr(Toy, "__init__", None)  # no data may be read
    run = load_run(finished)
    test = [example for example in toy_examples() if example.split == "test"]
    predicted = [row["label"] for row in run.predict([example.text for example in test])]
    hits = sum(label == example.target for label, example in zip(predicted, test, strict=True))
    assert hits / len(test) == pytest.approx(read(finished, "summary.json")["test"]["accuracy"])


@pytest.mark.slow
def test_the_saved_parameters_are_those_of_the_best_validation(finished):
    run = load_run(str(finished))
    batches = map(jax.device_put, Toy(run.config.data).batches("validation"))
    metrics = [run.objective.metrics(run.objective(batch), batch) for batch in batches]
    scores = reduce(operator.add, metrics).compute()
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: record["accuracy"])
    assert read(finished, "summary.json")["validation"] == best
    assert {name: best[name] for name in scores} == pytest.approx(scores, rel=1e-4)


RULES = Rules(8, ("accuracy", "max"))


class Silent:
    """Stands where the progress bar would."""

    def step(self):
        pass

    def resume(self, steps):
        pass

    def say(self, sentence):
        pass

    def validation(self, record):
        pass


def test_validation_chooses_the_first_best_and_keeps_a_copy(tmp_path):
    journal = Journal(RULES, RunFolder(tmp_path / "run"), Silent())
    for step, accuracy in enumerate([0.2, 0.8, 0.5, 0.8]):
        parameters = nnx.State({"w": jnp.full(2, float(step))})
        journal.validation(step, {"accuracy": accuracy, "loss": -accuracy}, parameters, None)
        jax.tree.map(lambda leaf: leaf.delete(), parameters)
    assert journal.best_record["step"] == 1
    np.testing.assert_array_equal(journal.best_parameters["w"], [1, 1])


def test_the_same_seed_gives_the_same_bits_and_the_result_in_words(finished, tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path / "again")]) == 0
    captured = capsys.readouterr()
    test = read(tmp_path / "again", "summary.json")["test"]
    last = captured.out.splitlines()[-1]
    assert last.startswith(f"test accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f} with p = ")
    assert captured.err.count("\n") == 6, "one plain line a validation, and one on how few texts there are"
    with np.load(finished / "parameters.npz") as one, np.load(tmp_path / "again" / "parameters.npz") as other:
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_skipped_steps_are_counted_in_a_row_also_after_a_resume(tmp_path):
    journal, counted = Journal(RULES, RunFolder(tmp_path / "run"), Silent()), []
    for step, finite in enumerate([False, False, True, False, False]):
        if finite:
            journal.step(1.0, 7, {})
        else:
            journal.skip(step, 7, "the loss", float("nan"), [0])
        counted.append(journal.skipped_in_row)
        later = Journal(RULES, RunFolder(tmp_path / str(step)), Silent())
        later.restore(json.loads(json.dumps(journal.snapshot())), nnx.State({}))
        journal = later
    assert counted == [1, 2, 0, 1, 2]
    assert (journal.steps, journal.tokens) == (5, 35)


class Poisoned(Mean):
    """A pooler whose gradient is not finite: d sqrt(x) / dx at 0."""

    def __call__(self, states, mask):
        pooled, shown = super().__call__(states, mask)
        return pooled + jnp.sqrt(pooled - pooled), shown


def test_non_finite_gradients_are_skipped_and_then_stop_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(POOLERS, "poisoned", Poisoned)
    line = [*TINY, "--pooler", "poisoned", "--optim.bad-steps", "3", "--out"]
    assert main([*line, str(tmp_path / "run")]) == 3
    error = capsys.readouterr().err.splitlines()
    leaf = "the gradient of 'encoder.words.table.embedding' is not finite at step"
    assert f"{leaf} 2 (loss " in error[-3]
    assert error[-3].endswith("texts in skipped.jsonl): step skipped (3 in a row).")
    assert f"{leaf} 3 (loss " in error[-1], "step 3 was dispatched before the report of step 2 was read"
    assert error[-1].endswith("4 steps in a row: try a smaller --optim.learning-rate.")
    assert not (tmp_path / "run" / "summary.json").exists()
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [record["step"] for record in skipped] == [0, 1, 2, 3]
    assert 0 < len(set(skipped[0]["rows"])) <= 32
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["4"]
    with pytest.raises(NonFiniteError, match="not finite at step 3"):
        main([*line, str(tmp_path / "debug"), "--debug"])


def test_an_old_run_is_never_overwritten(finished, capsys):
    assert main([*TINY, "--out", str(finished)]) == 2
    assert "exists and is not an empty folder: choose another one." in capsys.readouterr().err


def stored(path, **arrays):
    np.savez(path, **arrays)
    return path.read_bytes()


def test_parameters_are_checked_before_use(tmp_path):
    expected = nnx.State({"w": nnx.Param(jnp.ones((2, 3)))})
    path = tmp_path / "p.npz"
    save_parameters(path, expected)
    np.testing.assert_array_equal(
        jax.tree.leaves(parse_parameters(path.read_bytes(), path.name, expected))[0], np.ones((2, 3))
    )
    with pytest.raises(DataError, match=r"parameter 'w' has shape \(3,\), expected \(2, 3\)\."):
        parse_parameters(stored(path, w=np.ones(3)), path.name, expected)
    with pytest.raises(DataError, match="lacks parameter 'w'"):
        parse_parameters(stored(path), path.name, expected)
    with pytest.raises(DataError, match="has an unexpected parameter 'v'"):
        parse_parameters(stored(path, w=np.ones((2, 3)), v=np.ones(1)), path.name, expected)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"p.npz cannot be read"):
        parse_parameters(path.read_bytes(), path.name, expected)


def test_a_folder_that_holds_a_file_is_refused(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match="is not an empty folder"):
        RunFolder(tmp_path)
    with pytest.raises(UsageError, match="is not an empty folder"):
        RunFolder(tmp_path / "notes")
