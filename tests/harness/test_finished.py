"""Finished runs: what is read of a folder is what was written there, or the file that differs is named."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import report, train
from experiments.base.errors import DataError
from experiments.run import loop
from experiments.run.config import parse_args
from experiments.run.result import result_of
from experiments.run.trained import load_run
from experiments.storage.finished import EAGER, finished
from experiments.storage.manifest import MANIFEST
from experiments.storage.run_folder import RunFolder
from experiments.sweeping import cells as running
from experiments.sweeping import grid
from experiments.tasks import TASKS
from tests.harness.conftest import TINY, Toy

ROOT = Path(__file__).resolve().parents[2]
CHEAP = [*TINY, "--pooler", "mean", "--data.buckets", "1", "--epochs", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs of the same shapes: `one` with seed 0 and `other` with seed 1."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        for name, seed in (("one", "0"), ("other", "1")):
            assert train.main([*CHEAP, "--seed", seed, "--out", str(place / name)]) == 0
    return place


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the first run, to be changed."""
    return shutil.copytree(runs / "one", tmp_path / "run")


def before_manifests(folder: Path) -> Path:
    """Make a folder what it would have been before there were manifests."""
    (folder / MANIFEST).unlink()
    summary = json.loads((folder / "summary.json").read_text())
    del summary["sealed"]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def edited(name: str, change):
    """Change a JSON file."""

    def damage(folder: Path, other: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def of_other(name: str):
    """Put the file of another run there."""
    return lambda folder, other: shutil.copy(other / name, folder / name)


def flipped(name: str):
    """Flip one bit, so that the size stays."""

    def damage(folder: Path, other: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return damage


def linked(name: str):
    """Put a link to the same content there."""

    def damage(folder: Path, other: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return damage


def piped(name: str):
    """Put a pipe there."""

    def damage(folder: Path, other: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def gone(name: str):
    return lambda folder, other: (folder / name).unlink()


def emptied(name: str):
    return lambda folder, other: (folder / name).write_bytes(b"")


def one_word(content) -> None:
    content["words"][0] = content["words"][0][::-1] + "x"


DAMAGE = {
    "config.json of another run": ("config.json", of_other("config.json")),
    "config.json, another batch size": ("config.json", edited("config.json", lambda c: c["data"].update(batch_size=7))),
    "config.json, other features": ("config.json", edited("config.json", lambda c: c["encode"].update(features=17))),
    "config.json, a bit": ("config.json", flipped("config.json")),
    "config.json linked elsewhere": ("config.json", linked("config.json")),
    "config.json deleted": ("config.json", gone("config.json")),
    "config.json, a pipe": ("config.json", piped("config.json")),
    "summary.json of another run": ("summary.json", of_other("summary.json")),
    "summary.json, a bit": ("summary.json", flipped("summary.json")),
    "summary.json deleted": ("summary.json", gone("summary.json")),
    "summary.json, a pipe": ("summary.json", piped("summary.json")),
    "vocabulary.json, a word": ("vocabulary.json", edited("vocabulary.json", one_word)),
    "vocabulary.json, a label": ("vocabulary.json", edited("vocabulary.json", lambda c: c["labels"].reverse())),
    "parameters.npz of another run": ("parameters.npz", of_other("parameters.npz")),
    "parameters.npz emptied": ("parameters.npz", emptied("parameters.npz")),
    "parameters.npz, a pipe": ("parameters.npz", piped("parameters.npz")),
    "metrics.jsonl of another run": ("metrics.jsonl", of_other("metrics.jsonl")),
    "metrics.jsonl, a pipe": ("metrics.jsonl", piped("metrics.jsonl")),
    "environment.json, a bit": ("environment.json", flipped("environment.json")),
    "training.png, a bit": ("training.png", flipped("training.png")),
    "manifest.json, a bit": ("manifest.json", flipped("manifest.json")),
    "manifest.json of another run": ("", of_other("manifest.json")),
    "manifest.json deleted": ("manifest.json", gone("manifest.json")),
    "manifest.json, a pipe": ("manifest.json", piped("manifest.json")),
    "a file that does not belong": ("notes.txt", emptied("notes.txt")),
    "a pipe that does not belong": ("pipe", piped("pipe")),
    "skipped.jsonl that appears later": ("skipped.jsonl", emptied("skipped.jsonl")),
}


def test_every_file_is_in_the_manifest_and_a_run_as_written_is_read(runs, capsys):
    stated = json.loads((runs / "one" / MANIFEST).read_text())["files"]
    assert stated.keys() == {path.name for path in (runs / "one").iterdir()} - {MANIFEST, ".lock"}
    assert load_run(runs / "one").config.seed == 0
    assert result_of(runs / "one")["seed"] == 0
    assert report.main([str(runs / "one"), str(runs / "other")]) == 0
    assert "| toy | bag | mean |" in capsys.readouterr().out


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.timeout(60)
def test_a_changed_run_is_refused_and_the_file_is_named(case, runs, run, capsys):
    name, damage = DAMAGE[case]
    damage(run, runs / "other")
    for read in (load_run, result_of):
        with pytest.raises(DataError) as refused:
            read(run)
        assert name in str(refused.value)
    assert report.main([str(run)]) == 65
    captured = capsys.readouterr()
    assert name in captured.err
    assert captured.err.startswith("experiments.report: ")
    assert captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("name", [".lock", "tensorboard/events", "profile/trace", "checkpoints/rest", "quarantine/3/x"])
def test_what_may_appear_later_is_no_damage(name, run):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("later")
    assert result_of(run)["seed"] == 0


def test_a_large_file_is_compared_when_it_is_read_or_all_is_verified(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.write("large", "a" * (EAGER + 1))
        folder.finish({})
    (tmp_path / "run" / "large").write_text("a" * EAGER + "b")
    source = finished(tmp_path / "run")
    for read in (source.verify, lambda: source.content("large")):
        with pytest.raises(DataError, match="large has another SHA-256"):
            read()


def test_a_run_from_before_is_read_and_told_in_one_line(runs, run, capsys):
    before_manifests(run)
    assert report.main([str(run)]) == 0
    captured = capsys.readouterr()
    assert "| toy | bag | mean |" in captured.out
    assert captured.err.count("\n") == 1
    assert f"{run} has no manifest.json" in captured.err
    assert load_run(run).config.seed == 0


def numbered(**changes):
    return edited("summary.json", lambda content: content.update(changes))


def accuracy(value):
    return edited("summary.json", lambda content: content["test"].update(accuracy=value))


BEFORE = {
    "accuracy 5.0": ("accuracy 5.0, expected a share", accuracy(5.0)),
    "accuracy NaN": ("accuracy nan, expected a finite number", accuracy(float("nan"))),
    "accuracy true": ("accuracy True, expected a finite number", accuracy(True)),
    "accuracy as text": ("accuracy '0.9', expected a finite number", accuracy("0.9")),
    "accuracy of 400 digits": ("expected a finite number", accuracy(10**400)),
    "another pooler": ("pooler 'max', but config.json beside it 'mean'", numbered(pooler="max")),
    "another seed": ("seed 4, but config.json beside it 0", numbered(seed=4)),
    "a seed that is true": ("seed False, but config.json beside it 0", numbered(seed=False)),
    "no seconds": ("needs the objects test and seconds", numbered(seconds=3)),
    "p as text": ("p '2', expected finite numbers", numbered(p="2")),
    "summary.json a pipe": ("summary.json is a pipe", piped("summary.json")),
    "config.json a pipe": ("config.json is a pipe", piped("config.json")),
}


@pytest.mark.parametrize("case", BEFORE)
@pytest.mark.timeout(60)
def test_numbers_are_checked_without_a_manifest_too(case, run, capsys):
    message, damage = BEFORE[case]
    before_manifests(run)
    damage(run, run)
    assert report.main([str(run)]) == 65
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY"])
def test_parameters_without_a_manifest_are_one_line(content, run):
    before_manifests(run)
    (run / "parameters.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"parameters\.npz"):
        load_run(run)


def test_a_packed_array_that_announces_too_much_is_not_read(run):
    before_manifests(run)
    with np.load(run / "parameters.npz") as stored:
        arrays = dict(stored)
    name = sorted(arrays)[0]
    np.savez_compressed(run / "parameters.npz", **arrays | {name: np.zeros(2**28, np.int8)})
    with pytest.raises(DataError, match=r"has shape \(268435456,\)"):
        load_run(run)


def test_metrics_of_another_form_are_one_line(run, tmp_path, capsys):
    before_manifests(run)
    (run / "metrics.jsonl").write_text('{"time": 3}\n')
    source = report.records.read(run)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1 states step None"):
        _ = source.validations


def test_a_crash_between_summary_and_manifest_is_resumed(runs, run, capsys):
    (run / MANIFEST).unlink()
    assert finished(run) is None
    assert report.main([str(run)]) == 65
    assert "has summary.json but no manifest.json" in capsys.readouterr().err
    assert train.main(["--resume", str(run)]) == 0
    capsys.readouterr()
    one, again = (result_of(folder) for folder in (runs / "one", run))
    assert one["test"] == again["test"]
    assert (run / "metrics.jsonl").read_bytes() == (runs / "one" / "metrics.jsonl").read_bytes()


def test_a_finished_run_that_was_changed_is_not_resumed(runs, run, capsys):
    of_other("summary.json")(run, runs / "other")
    assert train.main(["--resume", str(run)]) == 65
    assert "summary.json has another" in capsys.readouterr().err


def cell_of(folder: Path) -> running.Cell:
    config = parse_args(CHEAP)
    return running.Cell(config, folder / grid.name(config))


@pytest.mark.slow
def test_a_damaged_cell_is_told_and_done_again_only_when_asked(runs, tmp_path, capsys, monkeypatch):
    cell = cell_of(tmp_path)
    shutil.copytree(runs / "one", cell.folder)
    assert cell.look().state == "finished"
    of_other("summary.json")(cell.folder, runs / "other")
    stamp = (cell.folder / "summary.json").stat().st_mtime_ns
    with pytest.raises(running.CellsFailedError, match="damaged"):
        running.sweep([cell], retry_failed=False)
    assert (cell.folder / "summary.json").stat().st_mtime_ns == stamp
    told = capsys.readouterr().err
    assert "summary.json has another" in told
    assert told.count("\n") == 1
    running.sweep([cell], retry_failed=True)
    assert cell.look().state == "finished"
    (kept,) = (tmp_path / ".damaged").iterdir()
    assert (kept / "summary.json").read_bytes() == (runs / "other" / "summary.json").read_bytes()


def test_the_run_of_another_cell_is_no_result(runs, tmp_path):
    cell = cell_of(tmp_path)
    shutil.copytree(runs / "other", cell.folder)
    assert cell.look().state == "damaged"


TRAINING = """
import sys, time
from pathlib import Path
from experiments.storage.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), resume=True) as folder:
    folder.append("metrics.jsonl", {"step": 0})
    Path(sys.argv[2]).write_text("")
    sys.stdin.read()
    folder.append("metrics.jsonl", {"step": 1})
"""


@pytest.mark.parametrize("failed", [True, False])
def test_a_cell_that_another_process_trains_stays_open_and_keeps_its_folder(tmp_path, monkeypatch, failed):
    cell, ready = cell_of(tmp_path / "out"), tmp_path / "ready"
    cell.folder.mkdir(parents=True)
    if failed:
        (cell.folder / "failure.json").write_text("{}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    other = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(cell.folder), str(ready)], stdin=subprocess.PIPE, env=environment
    )
    try:
        while not ready.exists():
            assert other.poll() is None
            time.sleep(0.05)
        with running.claim(cell, wait=False) as mine:
            assert not mine
        told = running.run_cell(cell, running.LastTask())
        assert told.startswith("open: ")
        assert "is in use by another process" in told
        assert (cell.folder / "failure.json").exists() == failed
        assert (cell.folder / "metrics.jsonl").read_text() == '{"step": 0}\n'
    finally:
        other.communicate(timeout=60)
    assert other.returncode == 0
    assert (cell.folder / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n', "it went on in its own folder"
    monkeypatch.setattr(loop, "train", lambda config, task: {"test": {"accuracy": 1, "macro_f1": 1}, "p": None})
    assert running.run_cell(cell, lambda config: None).startswith("test accuracy")
