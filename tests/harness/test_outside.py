"""An objective that the package does not know: trained, killed, resumed bit for bit, predicting and in a report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import report
from experiments.objectives import OBJECTIVES
from experiments.run.trained import load_run
from experiments.train import main
from tests.harness.conftest import CLUES, TINY
from tests.harness.outside import Margin
from tests.harness.test_resume import result

ROOT = Path(__file__).resolve().parents[2]
LINE = [*TINY, "--objective", "margin", "--pooler", "attention", "--data.buckets", "1", "--head.margin", "0.5"]


@pytest.fixture(autouse=True)
def margin(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "margin", Margin)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run in a process of its own."""
    folder = tmp_path_factory.mktemp("outside") / "whole"
    assert program(*LINE, "--out", str(folder)).wait(timeout=300) == 0
    return folder


def program(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "tests.harness.outside", *arguments]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_it_is_killed_and_goes_on_bit_for_bit(whole, tmp_path):
    folder = tmp_path / "run"
    process = program(*LINE, "--save.minutes", "0", "--out", str(folder))
    deadline = time.monotonic() + 300
    while not [*folder.glob("checkpoints/[1-9]*")] and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert not (folder / "summary.json").exists(), "killed before its end"
    assert program("--resume", str(folder)).wait(timeout=300) == 0
    assert result(folder)[1:] == result(whole)[1:]


def test_its_names_are_logged_shown_and_reported(whole, capsys):
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {"error_rate", "loss", "hinge", "size", "highest_score", "weight_norm"} <= records[-1].keys()
    assert {"train_loss", "train_hinge", "train_size", "train_highest_score", "train_weight_norm"} <= records[-1].keys()
    for record in records:
        assert record["loss"] == pytest.approx(record["hinge"] + 0.01 * record["size"], rel=1e-5)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["validation"]["error_rate"] == min(record["error_rate"] for record in records), "best is the lowest"
    assert summary["test"]["error_rate"] < 0.1
    assert report.main([str(whole)]) == 0
    printed = capsys.readouterr().out
    assert "share of errors" in printed
    assert "accuracy" not in printed
    assert f"{summary['test']['error_rate']:.4f}" in printed


def test_the_last_value_is_that_of_the_parameters(whole):
    """A logged last value is no average: at the first validation nothing has been trained yet, at the end all has."""
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    best = min(records, key=lambda record: record["error_rate"])
    kernel = load_run(whole).objective.linear.kernel[...]
    assert best["weight_norm"] == pytest.approx(float(np.linalg.norm(kernel)), rel=1e-5)


def test_it_predicts(whole):
    words = [word for clue in CLUES.values() for word in clue]
    labels = [row["label"] for row in load_run(whole).predict(words)]
    assert labels == [label for label, clue in CLUES.items() for _ in clue]


def test_an_objective_that_the_data_do_not_fit_is_one_line(tmp_path, capsys):
    assert main([*TINY, "--objective", "regress", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "the objective regress needs numbers, which the task toy has not: choose --objective classify or" in error
    assert error.count("\n") == 1
    assert main([*TINY, "--objective", "language_model", "--pooler", "mean"]) == 2
    assert "the objective language_model does not pool: leave out --pooler mean." in capsys.readouterr().err
    assert main([*TINY, "--objective", "clasify"]) == 2
    assert "unknown objective 'clasify': did you mean 'classify'?" in capsys.readouterr().err
