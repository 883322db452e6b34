"""Cells of a grid, done by one or several processes: locks, results, what is left and how long it takes.

A finished cell is never done again, so a sweep that was stopped, killed or extended goes on where it was. A cell
belongs to the process that holds the lock on its lock file, which the operating system lets go when the process ends,
however it ends. A cell that fails is recorded and the sweep goes on. Needs a POSIX system.
"""

import contextlib
import dataclasses
import fcntl
import gc
import io
import shlex
import shutil
import statistics
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.base.command_line import exit_code
from experiments.base.contracts import Task
from experiments.base.errors import CellsFailedError, StoppedError
from experiments.base.json_files import read_object
from experiments.base.options import to_dict
from experiments.run import build, loop
from experiments.run.config import CONFIG, Config, command_line
from experiments.run.result import in_words
from experiments.storage.run_folder import FAILURE, SUMMARY, as_json, write_whole


@dataclasses.dataclass(frozen=True)
class Cell:
    """One configuration and its place."""

    config: Config
    folder: Path

    @property
    def state(self) -> str:
        """What the folder says: "finished", "failed", or "open" when there is no result."""
        states = {SUMMARY: "finished", FAILURE: "failed"}
        return next((state for name, state in states.items() if (self.folder / name).exists()), "open")

    @property
    def command(self) -> str:
        """The command that does this cell alone."""
        places = ["--archives", str(self.config.data.archives)] if getattr(self.config.data, "archives", None) else []
        return shlex.join(["python", "-m", "experiments.train", *command_line(self.config), *places])


@contextlib.contextmanager
def claim(cell: Cell, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a cell inside the block; give False at once when another process has it and `wait` is off."""
    locks = cell.folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / cell.folder.name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


class LastTask:
    """Builds tasks and keeps the last one, because the next cell often needs the same data."""

    def __init__(self) -> None:
        self._key: Any = None
        self._task: Task | None = None

    def __call__(self, config: Config) -> Task:
        """Return the task of a configuration."""
        if self._task is None or self._key != (config.task, config.data):
            self._task = None  # its memory is free before the next one is read
            self._task = build.task(config)
            self._key = config.task, config.data
        return self._task


def run_cell(cell: Cell, task_of: LastTask) -> str:
    """Do one cell, whose lock this process holds, and return its result in words."""
    config = dataclasses.replace(cell.config, out=cell.folder)
    if (cell.folder / CONFIG).exists() and not (cell.folder / FAILURE).exists():
        config = dataclasses.replace(config, resume=cell.folder)  # a run that was stopped or killed goes on
    elif cell.folder.exists():
        shutil.rmtree(cell.folder)  # of a run that failed and is tried again, or that had just begun
    try:
        # What a run shows while it trains stands in its metrics.jsonl too.
        with contextlib.redirect_stderr(io.StringIO()):
            return in_words(loop.train(config, task_of(config)))
    except StoppedError:
        raise  # the sweep stops too, and the cell stays open
    except Exception as error:
        code = exit_code(error)
        what = str(error) if code > 1 else f"{type(error).__name__}: {error}"
        record = {"error": what, "exit_code": code, "config": to_dict(cell.config), "traceback": traceback.format_exc()}
        write_whole(cell.folder / FAILURE, as_json(record))
        return f"FAILED with exit code {code}: {what}"
    finally:
        # What the next cell needs again it reads from the folder of programs; memory stays that of one cell.
        jax.clear_caches()
        gc.collect()


def share_programs(folder: Path) -> None:
    """Keep compiled programs in a folder: cells that differ in the seed run the same ones."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


class Forecast:
    """Says how long the rest takes, from the seconds of the finished cells, whoever did them."""

    def __init__(self, cells: list[Cell]):
        self._cells = cells
        self._seconds: dict[Path, float] = {}
        self._before = self._finished()
        self._began = time.perf_counter()

    def _finished(self) -> set[Path]:
        for cell in self._cells:
            if cell.folder not in self._seconds and cell.state == "finished":
                summary = read_object(cell.folder / SUMMARY)
                self._seconds[cell.folder] = summary["seconds"]["total"]
        return set(self._seconds)

    def __str__(self) -> str:
        """How many cells are finished, and the time left at the pace of all processes together."""
        finished = self._finished()
        done = f"{len(finished)} of {len(self._cells)} finished"
        costs: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell in self._cells:
            if cell.folder in finished:
                costs[cell.config.task, cell.config.encoder].append(self._seconds[cell.folder])
        new = sum(self._seconds[folder] for folder in finished - self._before)
        if not new:
            return done
        usual = statistics.fmean(self._seconds.values())
        open_cells = [cell.config for cell in self._cells if cell.state == "open"]
        ahead = sum(statistics.fmean(costs.get((c.task, c.encoder), [usual])) for c in open_cells)
        minutes = (time.perf_counter() - self._began) * ahead / new / 60
        return f"{done}, about {minutes // 60:.0f} h {minutes % 60:.0f} min left"


def sweep(cells: list[Cell], *, retry_failed: bool) -> None:
    """Do every open cell: first those that no other process is at, then what others have left."""
    task_of, forecast, tried = LastTask(), Forecast(cells), set()
    for wait in (False, True):
        for cell in cells:
            again = retry_failed and cell.folder not in tried
            if cell.state == "finished" or (cell.state == "failed" and not again):
                continue
            with claim(cell, wait=wait) as mine:
                # Asked again, because the process that had the lock may have finished the cell.
                if not mine or cell.state == "finished" or (cell.state == "failed" and not again):
                    continue
                tried.add(cell.folder)
                began = time.perf_counter()
                result = run_cell(cell, task_of)
                print(f"{cell.folder.name}: {result}\n  {cell.command}", flush=True)
                print(f"{time.perf_counter() - began:.0f} s; {forecast}", file=sys.stderr, flush=True)
    failed = [cell for cell in cells if cell.state == "failed"]
    if failed:
        first = f"the first is {failed[0].folder}"
        raise CellsFailedError(
            f"{len(failed)} of {len(cells)} cells failed, {first}: see {FAILURE}, then --retry-failed."
        )
