"""Grids and sweeps: every cell once, whoever is killed; failures are recorded; a printed command repeats a cell."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import sweep, train
from experiments.base.errors import DataError, UsageError
from experiments.run import loop
from experiments.run.config import command_line, default_config, parse_args, to_json
from experiments.sweeping import cells as running
from experiments.sweeping import grid
from tests.harness.conftest import TINY, Toy

ROOT = Path(__file__).resolve().parents[2]


def cells(text: str, overrides: str = ""):
    return grid.cells(grid.parse(text), grid.parse(overrides))


def test_a_grid_is_the_product_of_its_lists():
    found = cells('task = "needles"\nencoder = ["bag", "cnn"]\nseed = [0, 1]\ndata.size = [50, 60]')
    assert len(found) == 8
    assert {(c.encoder, c.seed, c.data.size) for c in found} == {
        (encoder, seed, size) for encoder in ("bag", "cnn") for seed in (0, 1) for size in (50, 60)
    }
    # Cells of one data set are side by side, so that it is read once.
    assert [c.data.size for c in found] == [50] * 4 + [60] * 4


def test_what_is_said_about_a_part_holds_where_it_is_used():
    text = """
    epochs = 1
    pooler = ["mean", "learned_norm", "power_mean"]
    tasks.wordnet.epochs = 2
    encoders.bigru.encode.features = 7
    poolers.learned_norm.pool.p_init = [2.0, 3.0]
    poolers.mean.epochs = 3
    """
    found = {(c.pooler, getattr(c.pool, "p_init", None)): c for c in cells(text)}
    assert set(found) == {("mean", None), ("learned_norm", 2.0), ("learned_norm", 3.0), ("power_mean", 3.0)}
    assert {name: c.epochs for (name, _), c in found.items()} == {"mean": 3, "learned_norm": 2, "power_mean": 2}
    assert {c.encode.features for c in found.values()} == {7}
    # What the command line says wins, also over parts, and may narrow the grid.
    (last,) = cells(text, 'pooler = "mean"\nepochs = 9')
    assert (last.pooler, last.epochs) == ("mean", 9)


def test_products_are_united_and_no_cell_is_there_twice():
    found = cells('pooler = "learned_norm"\n[[cells]]\npool.exponent = "fixed"\npool.p_init = [1.0, 2.0]\n[[cells]]\n'
                  "[[cells]]\npool.p_init = 2.0")  # fmt: skip
    assert [(c.pool.exponent, c.pool.p_init) for c in found] == [("fixed", 1.0), ("fixed", 2.0), ("softplus", 2.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "not TOML"),
        ('pooler = "mena"', "unknown pooler 'mena': did you mean 'mean'"),
        ("pooler = []", "pooler is an empty list"),
        ("epoch = 3", "unknown configuration key 'epoch'"),
        ("pool.p_init = 100", "--pool.p-init 100.0 is outside its range"),
        ("tasks.wordnets.epochs = 1", "unknown task 'wordnets'"),
        ("tasks = 3", "tasks must hold one table a task"),
        ("cells = 3", "cells must be tables"),
        ("about = 3", "about must be text"),
    ],
)
def test_a_bad_grid_is_one_line_before_anything_runs(text, message, tmp_path, capsys):
    with pytest.raises(UsageError, match=message):
        cells(text)
    (tmp_path / "grid.toml").write_text(text)
    assert sweep.main([str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("experiments.sweep: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_name_of_a_cell_is_what_decides_its_result():
    line = ["--task", "trec", "--pooler", "mean"]
    name = grid.name(parse_args(line))
    assert name.startswith("trec-bigru-mean-seed0-")
    assert grid.name(parse_args([*line, "--out", "x", "--archives", "y", "--data.cache", "z", "--debug"])) == name
    others = [grid.name(parse_args([*line, *more.split()])) for more in ("--epochs 5", "--seed 1", "--optim.clip 2")]
    assert len({name, *others}) == 4


GRIDS = sorted((ROOT / "experiments" / "grids").glob("*.toml"))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_command_of_every_cell_of_every_committed_grid_makes_its_configuration(path):
    plan = grid.read(path)
    assert plan["about"]
    for config in grid.cells(plan, {"seed": 3}):
        assert parse_args(command_line(config)) == config


def test_a_flag_that_is_off_has_a_command_too():
    config = parse_args(["--pooler", "learned_norm", "--pool.no-sharpen", "--pool.p-init", "3"])
    assert command_line(config)[-3:] == ["--pool.p-init", "3.0", "--pool.no-sharpen"]
    assert parse_args(command_line(config)) == config != default_config()


@pytest.fixture
def no_programs():
    """A function that takes JAX's compilation cache away; called at the start of the test, undone at its end."""
    none = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 1}
    before = {name: getattr(jax.config, name) for name in none}

    def reset(values=none) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    reset()
    yield reset
    reset(before)


LINES = 'task="toy" encoder="bag" encode.features=16 data.batch_size=32 data.max_len=12 data.buckets=1 evaluations=1'
SMALL = [*LINES.split(), "epochs=1", "optim.learning_rate=0.03"]


def summaries(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/summary.json")}


def test_a_sweep_from_end_to_end(tmp_path, capsys, monkeypatch, no_programs):
    """Data is read once, a failing cell does not stop the others, and the printed command gives the same number."""
    built = []
    monkeypatch.setattr(
        Toy, "__init__", lambda self, options, init=Toy.__init__: (built.append(1), init(self, options))[1]
    )
    out = tmp_path / "sweep"
    line = ["--out", str(out), "--set", *SMALL, 'pooler=["mean","power_mean"]', "seed=[0,1]"]
    line += ["poolers.power_mean.pool.p_init=0.5", "poolers.power_mean.seed=0"]
    assert sweep.main(line) == 1
    assert len(built) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("experiments.sweep: 1 of 3 cells failed, the first is ")
    assert "2 of 3 finished, about 0 h 0 min left" in captured.err
    (failed,) = out.glob("*/failure.json")
    record = json.loads(failed.read_text())
    assert record["exit_code"] == 2
    assert "p_init" in record["error"]
    done = summaries(out)
    assert len(done) == 2

    commands = [line.strip() for line in captured.out.splitlines() if line.startswith("  python")]
    # Seed 1 ran the programs of seed 0, and is run again with programs of its own.
    assert [*(out / ".compiled").glob("jit_train*")]
    no_programs()
    again = shlex.split(next(line for line in commands if "--seed 1" in line))[3:]
    assert train.main([*again, "--out", str(tmp_path / "again")]) == 0
    (first,) = (out / name for name in done if "seed1" in name)
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (first, tmp_path / "again"))
    assert one["test"] == other["test"]
    with np.load(first / "parameters.npz") as a, np.load(tmp_path / "again" / "parameters.npz") as b:
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])

    # Finished and failed cells stay as they are, unless failed ones are asked for.
    stamp = failed.stat().st_mtime_ns
    assert sweep.main(line) == 1
    assert failed.stat().st_mtime_ns == stamp
    assert sweep.main([*line, "--retry-failed"]) == 1
    assert failed.stat().st_mtime_ns > stamp
    assert summaries(out) == done
    assert sweep.main([*line, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(": finished\n") == 2


def small_cell(out: Path) -> running.Cell:
    config = parse_args([*TINY, "--epochs", "1", "--data.buckets", "1", "--pooler", "mean"])
    return running.Cell(config, out / grid.name(config))


@pytest.mark.parametrize("error", [DataError("no text"), OSError("disk full"), RuntimeError("a bug")])
def test_every_kind_of_failure_is_recorded(error, tmp_path, monkeypatch):
    def fail(config, task):
        raise error

    monkeypatch.setattr(loop, "train", fail)
    cell = small_cell(tmp_path)
    assert "FAILED" in running.run_cell(cell, running.LastTask())
    record = json.loads((cell.folder / "failure.json").read_text())
    assert record["exit_code"] == {DataError: 65, OSError: 74, RuntimeError: 1}[type(error)]
    assert str(error) in record["error"]
    assert cell.look().state == "failed"


def test_an_unfinished_folder_is_done_again(tmp_path):
    cell = small_cell(tmp_path)
    cell.folder.mkdir()
    (cell.folder / "metrics.jsonl").write_text("half a li")
    running.sweep([cell], retry_failed=False)
    assert cell.look().state == "finished"
    assert all(json.loads(line) for line in (cell.folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize("failed", [False, True])
def test_a_stopped_cell_goes_on_and_a_failed_one_starts_again(tmp_path, monkeypatch, failed):
    cell = small_cell(tmp_path)
    cell.folder.mkdir()
    (cell.folder / "config.json").write_text(to_json(cell.config))
    if failed:
        (cell.folder / "failure.json").write_text("{}")
    seen = []
    monkeypatch.setattr(loop, "train", lambda config, task: seen.append((config.resume, cell.folder.exists())))
    monkeypatch.setattr(running, "in_words", str)
    running.run_cell(cell, lambda config: None)
    assert seen == [(None, False) if failed else (cell.folder, True)]


# A sweep whose cells take no computation: 40 cells that write what a run writes, in its order, and note that they did.
SCRIPT = """
import os, sys, time
from experiments import sweep
from experiments.run import loop
from experiments.run.config import to_json
from experiments.storage.run_folder import RunFolder

def run(config, task):
    names = {name: getattr(config, name) for name in ("task", "encoder", "pooler", "objective", "seed")}
    result = {"test": {"accuracy": 1.0, "macro_f1": 1.0}, "p": None, "parameters": 1, "seconds": {"total": 0.05}}
    with RunFolder(config.out, resume=config.resume is not None) as folder:
        folder.write("config.json", to_json(config))
        for step in range(4):
            time.sleep(0.01)
            folder.append("metrics.jsonl", {"step": step})
        with open(sys.argv[2], "a") as file:
            file.write(f"{os.getpid()} {config.out.name}\\n")
        folder.finish(names | result)
    return names | result

loop.train = run
plan = 'task="needles" pooler="mean" data.size=20 data.length=2'.split()
sys.exit(sweep.main(["--out", sys.argv[1], "--set", *plan, f"seed={[*range(40)]}"]))
"""


def start(out: Path, log: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(log)], env=environment, **quiet)


def finished(out: Path) -> dict[str, int]:
    """Finished cells and when they were finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/manifest.json")}


@pytest.mark.slow
def test_two_processes_share_a_grid_and_one_of_them_is_killed(tmp_path):
    """Killed twice at some moment, beside another process: no finished cell is done again and none is lost."""
    out, log = tmp_path / "out", tmp_path / "log"
    stays = start(out, log)
    for cells_before in (8, 16):
        killed = start(out, log)
        while len(finished(out)) < cells_before or str(killed.pid) not in log.read_text():
            assert killed.poll() is None
            time.sleep(0.003)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert stays.wait(timeout=300) == 0
    done = finished(out)
    assert len(done) == 40
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({pid for pid, _ in lines}) == 3, "all three processes did cells"
    # A cell that was noted and not yet written when the process was killed is done again; there is at most one a kill.
    assert 40 <= len(lines) <= 42
    again = start(out, log)
    assert again.wait(timeout=300) == 0
    assert finished(out) == done
    assert len(log.read_text().splitlines()) == len(lines)
