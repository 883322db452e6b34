"""Many devices and processes: the results of one device, but for the order of sums; checkpoints fit any number."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from experiments.base import devices
from experiments.base.devices import DeviceOptions
from experiments.run import build, loop
from experiments.run.config import parse_args
from experiments.storage import checkpoints
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness.conftest import TINY, Toy
from tests.harness.test_resume import interrupt, result
from tests.harness.tiny import prepare

ROOT = Path(__file__).resolve().parents[2]
CLOSE = {"rtol": 2e-3, "atol": 2e-4}
MORE = "--pooler attention --epochs 2 --data.buckets 1 --optim.accumulate 2 --optim.average 0.5"
LINE = [*TINY, *MORE.split()]


def on(count: int, *more: str) -> list[str]:
    return ["--devices.count", str(count), *more]


@pytest.fixture
def small_shares(monkeypatch):
    """Arrays of these tiny models are cut too."""
    monkeypatch.setattr(devices, "SMALLEST", 32)


@pytest.fixture
def optimised(monkeypatch):
    """Programs that run for longer than they compile are compiled as users do it, here and in the processes started."""
    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "True"
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "False")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        folder = tmp_path_factory.mktemp("alone") / "run"
        assert main([*LINE, *on(1), "--out", str(folder)]) == 0
    return folder


def parameters(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "parameters.npz") as arrays:
        return dict(arrays)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if value is not None} for line in lines]


def assert_close(one: Path, other: Path):
    chex.assert_trees_all_close(parameters(other), parameters(one), **CLOSE)
    chex.assert_trees_all_close(records(other), records(one), **CLOSE)


@pytest.mark.slow
def test_a_run_on_eight_devices_goes_on_with_two(alone, tmp_path, monkeypatch, capsys, small_shares):
    folder = tmp_path / "run"
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*LINE, *on(8, "--devices.parameters", "sharded"), "--out", str(folder)]) == 75
    assert main(["--resume", str(folder), *on(2)]) == 0
    assert "device was '8 x cpu', is '2 x cpu': the run goes on, but not bit for bit." in capsys.readouterr().err
    assert_close(alone, folder)


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_run_on_four_devices_repeats_and_goes_on_bit_for_bit(compute, tmp_path, monkeypatch, small_shares):
    """Stopped between two batches whose gradients make one update."""
    line = [*LINE, *on(4, "--devices.parameters", "sharded"), "--compute", compute, "--out"]
    for name in ("one", "again"):
        assert main([*line, str(tmp_path / name)]) == 0
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*line, str(tmp_path / "broken")]) == 75
    assert main(["--resume", str(tmp_path / "broken")]) == 0
    for name in ("again", "broken"):
        assert result(tmp_path / name) == result(tmp_path / "one")


def state_on(count: int, parameters: str, seed: int = 0):
    config = parse_args([*LINE, *on(count), "--devices.parameters", parameters, "--seed", str(seed)])
    return prepare(config, Toy(config.data)).state


@pytest.mark.slow
def test_a_state_is_restored_on_other_devices_bit_for_bit(tmp_path, small_shares):
    with devices.mesh(DeviceOptions(count=1), 32):
        state = devices.gather(state_on(1, "sharded"))
    for step, (count, parameters) in enumerate([(1, "sharded"), (4, "sharded"), (2, "sharded"), (8, "replicated")]):
        path = checkpoints.write(tmp_path, step, state, {})
        with devices.mesh(DeviceOptions(count=count), 32):
            other = state_on(count, parameters, seed=1)
            restored, _ = checkpoints.load(path, other)
            assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, other)
            cut = [leaf for leaf in jax.tree.leaves(restored) if not leaf.is_fully_replicated]
            assert bool(cut) == (count > 1 and parameters == "sharded")
            found = devices.gather(restored)
        jax.tree.map(np.testing.assert_array_equal, found, state)


def test_the_rule():
    with devices.mesh(DeviceOptions(count=4), 32):
        assert devices.spec((40_000, 96), False) == PartitionSpec()
        assert devices.spec((40_000, 96), True) == PartitionSpec("data")
        assert devices.spec((40_001, 96), True) == PartitionSpec(None, "data"), "4 divides the second axis only"
        assert devices.spec((40_001, 97), True) == PartitionSpec()
        assert devices.spec((40, 96), True) == PartitionSpec(), "too small"


COLLECTIVE = re.compile(r" = \(?(.*?)\)? (all-gather|all-to-all|collective-permute)(?:-start)?\(")


def step_on(count: int, layout: str, compute: str):
    """The parameters after a step and what it told, on the host; the shapes that devices exchanged; all shapes.

    The batch has 64 x 48 states of 64 features: on one device the pooling loops over blocks of them on a CPU.
    """
    line = "--task needles --data.size 100 --data.max-len 48 --data.buckets 1 --encoder bag --encode.features 64"
    line = f"{line} --data.batch-size 64 --devices.parameters {layout} --compute {compute}"
    config = parse_args([*line.split(), *on(count)])
    with devices.mesh(config.devices, 64):
        task = build.task(config)
        prepared = prepare(config, task)
        state = prepared.state
        shapes = {leaf.shape for leaf in jax.tree.leaves(state.parameters)}
        state, report = prepared.train(state, task.train_batch(0, 0))
        result = devices.gather((state.parameters, report))
    (program,) = prepared.programs.train._programs.values()
    sizes = [size for shape, _ in COLLECTIVE.findall(program.as_text()) for size in re.findall(r"\[([\d,]+)\]", shape)]
    return result, {tuple(map(int, size.split(","))) for size in sizes}, shapes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compute", "near"),
    [("float32", CLOSE), ("bfloat16", {"rtol": 2e-2, "atol": 2e-3})],
)
def test_a_step_of_the_power_mean_is_that_of_one_device_and_exchanges_no_states(compute, near, small_shares):
    expected, exchanged, _ = step_on(1, "replicated", compute)
    assert not exchanged
    found, exchanged, shapes = step_on(8, "sharded", compute)
    assert exchanged
    assert exchanged <= shapes, "parameters are gathered, nothing else is"
    chex.assert_trees_all_close(found, expected, **near)


def test_each_process_gives_its_rows_of_a_batch(monkeypatch):
    (batch, *_) = Toy(Toy.Options(batch_size=32)).batches("validation")
    parts = []
    with devices.mesh(DeviceOptions(count=2), 32):
        monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda _, rows: rows)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        for process in range(2):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            parts.append(devices.put_batch(batch))
    assert [len(part.tokens) for part in parts] == [16, 16]
    jax.tree.map(lambda x, *y: np.testing.assert_array_equal(np.concatenate(y), x), batch, *parts)


WRONG = {
    "--devices.count 3": "--data.batch-size 32 cannot be cut over 3 devices: choose 33, or another --devices.count.",
    "--devices.count 9": "--devices.count 9: there are 8 devices, choose fewer.",
    "--devices.processes 2": "several processes need --devices.coordinator: give the HOST:PORT of process 0.",
    "--devices.coordinator localhost:1 --devices.process 1": "--devices.process 1 is not below --devices.processes 1.",
    "--devices.coordinator 10.0.0.1": "--devices.coordinator 10.0.0.1 is not HOST:PORT with a port from 1 to 65535.",
    "--devices.coordinator auto": "the processes did not meet (",
    "--devices.parameters halved": "--devices.parameters",
}


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_are_one_line_and_leave_no_folder(line, tmp_path, capsys):
    assert main([*LINE, *line.split(), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert WRONG[line] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


PROCESS = """
import os, signal, sys
from experiments.base import devices
from experiments.run import loop
from experiments.run.config import parse_args
from experiments.base.errors import StoppedError
from experiments.run.journal import Journal
from experiments.tasks import TASKS
from tests.harness.conftest import Toy

TASKS["toy"], devices.SMALLEST, note = Toy, 32, Journal.step

def noted(self, *step):
    note(self, *step)
    if self.steps == 5 and not devices.is_first():
        os.kill(os.getpid(), signal.SIGTERM)

folder, stop, *line = sys.argv[1:]
config = parse_args([*line, "--out", folder])
with devices.distributed(config.devices):
    if stop == "stop":
        Journal.step = noted
        try:
            loop.train(config)
        except StoppedError as error:
            print(error)
        Journal.step = note
        config = parse_args(["--resume", folder, *line[line.index("--devices.parameters"):]])
    loop.train(config)
"""


def together(*line: str, devices_each: int = 1) -> list[subprocess.CompletedProcess]:
    """Run a command in two processes that meet over loopback; the limit of the test is theirs too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices_each}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    meet = ["--devices.coordinator", address, "--devices.processes", "2", "--devices.process"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, "cwd": ROOT}
    started = [subprocess.Popen([sys.executable, *line, *meet, str(index)], **pipes) for index in range(2)]
    try:
        return [subprocess.CompletedProcess([], 0, *process.communicate()) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
def test_two_processes_train_as_one_does(alone, tmp_path):
    """Both have two devices, and the state is cut over all four."""
    line = ["-c", PROCESS, str(tmp_path / "run"), "on", *LINE, "--devices.parameters", "sharded"]
    first, second = together(*line, devices_each=2)
    assert "epoch 2.0: validation loss" in first.stderr
    assert "epoch" not in second.stderr
    assert_close(alone, tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["device"], environment["processes"]) == ("4 x cpu", 2)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(alone, tmp_path):
    """SIGTERM reaches the second process only, at step 5; the first one learns of it with a later report."""
    folder = tmp_path / "run"
    first, second = together("-c", PROCESS, str(folder), "stop", *LINE, "--devices.parameters", "sharded")
    said = r"stopped by SIGTERM at step (\d+), which is saved: go on with --resume " + re.escape(f"{folder}\n")
    steps = [re.search(rf"{said}\Z", process.stdout) for process in (first, second)]
    assert all(steps), first.stderr
    assert steps[0][1] == steps[1][1]
    assert 5 < int(steps[0][1]) <= 5 + loop.IN_FLIGHT + 2, "a validation is in between"
    assert f"going on from step {steps[0][1]}." in first.stderr
    assert "going on" not in second.stderr
    assert_close(alone, folder)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("optimised")
def test_two_processes_finish_the_main_job(tmp_path):
    """As far from one device as two devices of one process are: by the order of sums."""
    line = ["-m", "experiments.train", "--epochs", "1"]
    first, second = together(*line, "--out", str(tmp_path / "2 processes"))
    assert "test accuracy" in first.stdout, first.stderr
    assert "test accuracy" not in second.stdout
    for count, name in ((1, "1 device"), (2, "2 devices")):
        assert main([*line[2:], *on(count), "--out", str(tmp_path / name)]) == 0
    found = []
    for name in ("1 device", "2 devices", "2 processes"):
        facts = json.loads((tmp_path / name / "summary.json").read_text())
        scores = {score: facts["test"][score] for score in ("accuracy", "macro_f1", "loss")} | {"p": facts["p"]}
        print(f"{name}: {facts['steps']} steps,", ", ".join(f"{key} {score:.4f}" for key, score in scores.items()))
        found.append(scores)
    assert found[1:] == [pytest.approx(found[0], abs=0.02)] * 2
