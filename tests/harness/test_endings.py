"""How commands end: streams that are closed or full, folders that disappear, processes that do not meet."""

import asyncio
import gc
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from experiments import report, sweep, train
from experiments.base.errors import NetworkError, UsageError
from experiments.base.meeting import meet
from experiments.run import loop
from experiments.run.journal import Journal
from experiments.run.result import result_of
from experiments.storage import checkpoints
from tests.harness.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
CHEAP = [*TINY, "--pooler", "mean", "--data.buckets", "1", "--epochs", "1"]
NEEDLES = """
--task needles --data.size 40 --data.length 4 --data.max-len 8 --data.batch-size 8 --data.buckets 1 --encoder bag
--encode.features 8 --pooler mean --evaluations 1 --epochs 1 --devices.count 1
"""


def broken_pipe():
    """A stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


STREAMS = {
    "stdout full": ("stdout", lambda: open("/dev/full", "w"), 74),  # noqa: SIM115
    "stdout without a reader": ("stdout", broken_pipe, 74),
    "no stdout": ("stdout", lambda: None, 0),
    "stderr full": ("stderr", lambda: open("/dev/full", "w"), 0),  # noqa: SIM115
    "stderr without a reader": ("stderr", broken_pipe, 0),
    "no stderr": ("stderr", lambda: None, 0),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_cannot_be_written_costs_no_result(case, tmp_path, monkeypatch, capsys):
    name, make, code = STREAMS[case]
    stream = make()
    monkeypatch.setattr(sys, name, stream)
    assert train.main([*CHEAP, "--out", str(tmp_path / "run")]) == code
    assert getattr(sys, name) is stream
    if stream is not None:
        stream.close()  # what is left in it goes nowhere now, as at the end of a process
    assert result_of(tmp_path / "run")["seed"] == 0
    captured = capsys.readouterr()
    if code:
        assert captured.err.splitlines()[-1].startswith("experiments.train: stdout cannot be written (")


@pytest.mark.slow
def test_the_reader_of_a_pipe_may_leave_and_closed_streams_lend_no_file_their_number(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    line = f"{sys.executable} -m experiments.train {' '.join(NEEDLES.split())} --out"
    left = f"set -o pipefail; {line} {tmp_path / 'left'} 2>&1 | head -1"
    shut = f"{line} {tmp_path / 'shut'} >&- 2>&-"
    for command, code in ((left, 74), (shut, 0)):
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stdout + done.stderr
    for name in ("left", "shut"):
        assert result_of(tmp_path / name)["task"] == "needles"


@pytest.mark.slow
def test_a_character_that_cannot_be_shown_is_shown_as_its_number(tmp_path, monkeypatch, capsys):
    for seed in ("0", "1"):
        assert train.main([*CHEAP, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    assert report.main([str(tmp_path / "0"), str(tmp_path / "1")]) == 0
    assert rb" \xb1 " in out.buffer.getvalue()


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def turned_into_a_link(folder: Path) -> None:
    moved(folder)
    folder.with_name("photos").mkdir()
    folder.symlink_to(folder.with_name("photos"))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("change", [moved, turned_into_a_link, shutil.rmtree])
def test_a_folder_that_is_no_longer_there_is_one_line(change, tmp_path, monkeypatch, capsys):
    folder, note, seen = tmp_path / "run", Journal.step, []

    def noted(self, *step):
        note(self, *step)
        if not seen:
            seen.append(change(folder))

    monkeypatch.setattr(Journal, "step", noted)
    assert train.main([*CHEAP, "--save.minutes", "0", "--out", str(folder)]) == 74
    last = capsys.readouterr().err.splitlines()[-1]
    assert "is no longer the folder of this run" in last if change is turned_into_a_link else "has disappeared" in last
    assert not (folder / "metrics.jsonl").exists()
    if change is turned_into_a_link:
        assert not [*(tmp_path / "photos").iterdir()], "nothing is written elsewhere"


def test_a_run_of_which_no_step_was_accepted_has_no_result(tmp_path, monkeypatch, capsys):
    settle = loop.settle

    def settled(run, pending):
        if pending is not None:
            pending = pending._replace(report=pending.report._replace(accepted=np.bool_(False), loss=np.float32("nan")))
        return settle(run, pending)

    monkeypatch.setattr(loop, "settle", settled)
    line = [*CHEAP, "--optim.bad-steps", "1000", "--out", str(tmp_path / "run")]
    assert train.main(line) == 3
    assert "none of the 8 steps was accepted" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "summary.json").exists()
    assert checkpoints.steps(tmp_path / "run" / "checkpoints"), "its state is saved"


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def test_processes_that_do_not_meet_are_one_line(capsys):
    address = f"127.0.0.1:{free_port()}"
    for process in ("0", "1"):
        line = ["--devices.coordinator", address, "--devices.processes", "2", "--devices.process", process]
        assert train.main([*CHEAP, *line, "--devices.wait", "1"]) == 69
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "in time" in error


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:0", ":80", "nowhere", "a" * 1000 + ":80", "::1:x"])
def test_an_impossible_address_is_one_line(address, capsys):
    assert train.main([*CHEAP, "--devices.coordinator", address, "--devices.processes", "2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) <= 301
    assert "--devices.coordinator" in error


def test_processes_that_come_late_meet_and_strangers_are_passed_over():
    port, ended = free_port(), []

    def come(process: int) -> None:
        ended.append((process, meet(f"127.0.0.1:{port}", process, 3, 60)))

    threads = [threading.Thread(target=come, args=(process,)) for process in (2, 0)]
    for thread in threads:
        thread.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 500, b'{"lnpool": 3}\n'):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as stranger:
                    stranger.sendall(said)
                break
            except ConnectionError:
                continue
    come(1)
    for thread in threads:
        thread.join(60)
    assert sorted(process for process, _ in ended) == [0, 1, 2]


@pytest.mark.slow
def test_processes_that_disagree_are_told():
    port = free_port()
    told = []

    def come() -> None:
        with pytest.raises(NetworkError, match="did not meet"):
            meet(f"127.0.0.1:{port}", 1, 3, 5)
        told.append(1)

    other = threading.Thread(target=come)
    other.start()
    with pytest.raises(UsageError, match=r"came as --devices\.process 1 of 3"):
        meet(f"127.0.0.1:{port}", 0, 2, 60)
    other.join(60)
    assert told


FULL = """
import gc, resource, signal, sys, time
from pathlib import Path
import numpy as np
from experiments.storage import checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tree = {f"w{index}": np.random.default_rng(index).normal(size=(200, 100)) for index in range(12)}
before, failed = resource.getrlimit(resource.RLIMIT_FSIZE), 0
for step in range(6):
    resource.setrlimit(resource.RLIMIT_FSIZE, ([100, 5000, 60000][step % 3], before[1]))
    try:
        checkpoints.write(Path(sys.argv[1]), step, tree, {})
    except (OSError, ValueError, RuntimeError):
        failed += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
gc.collect()
time.sleep(1)
print(failed)
"""


def test_a_full_disk_prints_no_traceback_of_a_thread(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")


@pytest.mark.parametrize(("place", "logged"), [(f"runs/{checkpoints.PARTIAL}2/d", 0), ("elsewhere", 1)])
def test_a_write_that_fails_after_the_first_is_not_logged(place, logged, caplog):
    """Asyncio logs an error that nobody has asked for when its future is deleted, whenever that is."""
    checkpoints._let_late_answers_go()
    events = asyncio.new_event_loop()
    future = events.create_future()
    future.set_exception(ValueError(f"Error writing {place}"))
    del future
    gc.collect()
    events.close()
    assert len([record for record in caplog.records if record.name == "asyncio" and record.exc_info]) == logged


@pytest.mark.parametrize("word", ["x" * 1000, "9" * 1000, "\u00b1" * 1000])
@pytest.mark.parametrize("flag", ["--task", "--epochs", "--pooler", "--data.batch-size", "--resume", "--", "--set"])
def test_messages_are_bounded(flag, word, capsys):
    command = sweep.main if flag == "--set" else train.main
    code = 74 if flag == "--resume" else 2  # a name that is too long for the file system
    assert command([flag, word, *(["--out", "x"] if flag == "--set" else [])]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) <= 301
