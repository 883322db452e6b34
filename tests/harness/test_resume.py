"""Runs that are interrupted, by signals, kills and errors: nothing is lost and the rest is as if nothing had been."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.base.errors import UsageError
from experiments.run import saver as saving
from experiments.run.config import parse_args
from experiments.run.journal import Journal
from experiments.run.signals import Stop
from experiments.run.step import culprit, leaf_names
from experiments.storage import checkpoints
from experiments.storage.run_folder import RunFolder
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness.conftest import TINY, Toy, toy_examples
from tests.harness.tiny import prepare

ROOT = Path(__file__).resolve().parents[2]
CHEAP = [*TINY, "--pooler", "mean", "--data.buckets", "1", "--epochs", "2"]


def result(folder):
    """All of a run folder that the clock does not decide."""
    summary = json.loads((folder / "summary.json").read_text())
    timed = ("seconds", "tokens_per_second", "step_seconds", "input_share", "peak_memory_bytes", "compilations")
    with np.load(folder / "parameters.npz") as arrays:
        parameters = {name: array.tobytes() for name, array in arrays.items()}
    records = (folder / "metrics.jsonl").read_bytes()
    return {name: value for name, value in summary.items() if name not in timed}, parameters, records


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an unbroken run, with a profile, which must not change the result."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        assert main([*CHEAP, "--profile", "--out", str(folder)]) == 0
    return folder


def interrupt(monkeypatch, step, action):
    """Do something when the journal notes a step, once."""
    note, pending = Journal.step, [step]

    def noted(self, *step):
        note(self, *step)
        if self.steps in pending:
            pending.remove(self.steps)
            action()

    monkeypatch.setattr(Journal, "step", noted)


STOPS = [(signal.SIGTERM, step) for step in (5, *range(1, 5), *range(6, 16))] + [(signal.SIGINT, 16)]


@pytest.mark.sampled(15)
@pytest.mark.parametrize(("number", "step"), STOPS)
def test_a_signal_saves_and_resume_is_bit_identical(number, step, whole, tmp_path, monkeypatch, capsys):
    """A step is noted when the next one is dispatched. Step 16 is the last: its validation and the test are left."""
    saved = min(step + 1, 16)
    folder, handlers = tmp_path / "run", [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    interrupt(monkeypatch, step, lambda: os.kill(os.getpid(), number))
    assert main([*CHEAP, "--out", str(folder)]) == 75
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"experiments.train: stopped by {number.name} at step {saved}, which is saved: go on with --resume {folder}"
    )
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [str(saved)]
    # What a killed process may have written after the checkpoint is taken back.
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "torn')
    assert main(["--resume", str(folder)]) == 0
    captured = capsys.readouterr()
    assert f"going on from step {saved}." in captured.err
    assert result(folder) == result(whole)
    assert not (folder / "checkpoints").exists()
    assert main(["--resume", str(folder)]) == 0, "a finished run is read again"
    assert capsys.readouterr().out == captured.out


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
    (folder / "metrics.jsonl").write_text('{"step": 0, "epoch"')
    assert main(["--resume", str(folder)]) == 0
    assert "there is no checkpoint: the run starts at step 0." in capsys.readouterr().err
    assert result(folder) == result(whole)


@pytest.mark.slow
def test_kill_9_at_random_times(tmp_path):
    assert kills(tmp_path, 20).returncode == 0


def kills(folder, number):
    line = [sys.executable, "-m", "tests.harness.kill", "--kills", str(number), "--out", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert f"{number} kill -9" in done.stdout
    return done


def test_a_second_signal_ends_the_process_at_once():
    program = """
import os, signal, sys
from experiments.run.signals import Stop
with Stop() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.requested, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "SIGTERM\n")


def test_two_writers_are_kept_apart(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
    with RunFolder(folder, resume=True):
        assert main(["--resume", str(folder)]) == 2
        assert f"{folder} is in use by another process" in capsys.readouterr().err
    with RunFolder(tmp_path / "new"), pytest.raises(UsageError, match="is in use by another process"):
        RunFolder(tmp_path / "new").__enter__()
    with RunFolder(tmp_path / "new") as late:
        late.write("config.json", "{}")
    late = RunFolder(tmp_path / "later")
    with RunFolder(tmp_path / "later") as first:
        first.write("config.json", "{}")
    with pytest.raises(UsageError, match="is not an empty folder"):
        late.__enter__()


def test_a_folder_that_knows_no_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with RunFolder(tmp_path / "run") as folder:
        folder.write("config.json", "{}")
    assert "run cannot be locked (Operation not supported)" in capsys.readouterr().err


BROKEN = {
    "--resume nowhere": "--resume nowhere has no config.json: give the folder of a run.",
    "--resume nowhere --epochs 3": "--resume takes every option but --devices from the folder: leave out --epochs.",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_wrong_resume_is_one_line(line, capsys):
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"experiments.train: {BROKEN[line]}\n"


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a run that was stopped at step 3."""
    interrupt(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*CHEAP, "--out", str(tmp_path / "run")]) == 75
    return tmp_path / "run"


@pytest.mark.slow
def test_other_options_or_data_are_refused_and_other_versions_told(stopped, monkeypatch, capsys):
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps(config | {"seed": 7}))
    assert main(["--resume", str(stopped)]) == 65
    assert "seed of the options was '0' when the run was saved, is '7': undo the" in capsys.readouterr().err
    (stopped / "config.json").write_text(json.dumps(config))
    with monkeypatch.context() as patch:
        patch.setattr("tests.harness.conftest.toy_examples", lambda: toy_examples()[:-1])
        assert main(["--resume", str(stopped)]) == 65
    assert "of the data was " in capsys.readouterr().err
    with monkeypatch.context() as patch:
        load = checkpoints.load
        patch.setattr(checkpoints, "load", lambda *given: (load(*given)[0], {"journal": {}}))
        assert main(["--resume", str(stopped)]) == 65
    error = "experiments.train: checkpoint 3 is of another program: its facts lack circumstances, seconds.\n"
    assert capsys.readouterr().err == error
    monkeypatch.setattr(saving, "environment", lambda: {"jax": "0.1"})
    assert main(["--resume", str(stopped)]) == 0
    assert re.search(r"jax was '.*', is '0.1': the run goes on, but not bit for bit\.", capsys.readouterr().err)


def test_a_failed_save_is_told_and_the_third_ends_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    line = [*CHEAP, "--save.minutes", "0", "--out"]
    assert main([*line, str(tmp_path / "full")]) == 74
    error = capsys.readouterr().err.splitlines()
    sentences = [words for words in error if "could not be saved" in words]
    assert len(sentences) == 3
    assert re.match(
        r"experiments.train: step 1 could not be saved \(\[Errno 28\] No space left on device: 10 bytes are free, "
        r"\d+ are needed\); nothing is saved yet; training goes on \(failure 1 of 3\)\.",
        sentences[0],
    )
    assert sentences[2].endswith("nothing is saved yet, and this was failure 3 in a row.")


@pytest.mark.slow
def test_a_save_that_fails_once_costs_nothing(whole, tmp_path, monkeypatch, capsys):
    """Steps 2 and 3 cannot be written; the checkpoint of step 1 stays until there is a better one."""
    write, kept = checkpoints.write, []

    def failing(folder, step, tree, facts):
        kept.append([path.name for path in checkpoints.steps(folder)])
        if step in (2, 3):
            raise OSError(28, "No space left on device")
        return write(folder, step, tree, facts)

    monkeypatch.setattr(checkpoints, "write", failing)
    assert main([*CHEAP, "--save.minutes", "0", "--save.keep", "1", "--out", str(tmp_path / "run")]) == 0
    assert kept[:6] == [[], ["1"], ["1"], ["1"], ["4"], ["5"]]
    assert capsys.readouterr().err.count("the last saved step is 1; training goes on") == 2
    assert result(tmp_path / "run")[1:] == result(whole)[1:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["seconds"]["save"] > 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(accumulate):
    """With gradients of two batches for one update: neither the parameters nor what is summed so far."""
    config = parse_args([*CHEAP, "--optim.average", "0.9", "--optim.accumulate", accumulate])
    task = TASKS["toy"](config.data)
    prepared = prepare(config, task)
    state, report = prepared.train(prepared.state, task.train_batch(0, 0))
    assert report.accepted
    before = jax.tree.map(np.asarray, state)
    batch = task.train_batch(0, 1)
    weights = np.where(np.arange(len(batch.weights)) == 3, np.nan, batch.weights).astype(np.float32)
    state, report = prepared.train(state, batch._replace(weights=weights))
    assert not report.accepted
    assert (
        culprit(jax.device_get(report), leaf_names(state.parameters))
        == "the gradient of 'encoder.words.table.embedding'"
    )
    assert int(state.step) == int(before.step) + 1
    for old, new in zip(jax.tree.leaves(before._replace(step=0)), jax.tree.leaves(state._replace(step=0)), strict=True):
        np.testing.assert_array_equal(old, new)
    state, report = prepared.train(state, batch)
    assert report.accepted


def test_a_profile_is_written(whole):
    assert list((whole / "profile").rglob("*.xplane.pb"))


def test_signals_outside_the_main_thread_are_left_alone(monkeypatch):
    monkeypatch.setattr("threading.main_thread", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) == before
