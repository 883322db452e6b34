"""Cells of a grid, done by one or several processes: locks, results, what is left and how long it takes.

A finished cell is never done again, so a sweep that was stopped, killed or extended goes on where it was. A cell
belongs to the process that holds the lock on its lock file, which the operating system lets go when the process ends,
however it ends. A cell that fails is recorded and the sweep goes on; one that is trained by a
command of its own stays open. Needs a POSIX system.
"""

import contextlib
import dataclasses
import gc
import io
import os
import shlex
import shutil
import statistics
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.base.command_line import exit_code
from experiments.base.contracts import Task
from experiments.base.errors import CellsFailedError, DataError, InUseError, StoppedError, in_short
from experiments.base.options import to_dict
from experiments.run import build, loop, result
from experiments.run.config import CONFIG, Config, command_line
from experiments.run.result import in_words
from experiments.storage.finished import Finished, finished, warn_unverified
from experiments.storage.run_folder import FAILURE, LOCK, as_json, locked, write_whole
from experiments.sweeping import grid


class Look(NamedTuple):
    """What the folder of a cell says: "finished", "failed", "damaged", or "open" when there is no result."""

    state: str
    reason: str = ""
    """What is wrong with a damaged cell."""
    seconds: float = 0.0
    """What a finished cell took."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One configuration and its place."""

    config: Config
    folder: Path

    def look(self) -> Look:
        """Return what the folder says.

        A cell is finished when all files of its run are as they were written and its configuration is that of the cell.
        """
        failed = os.path.lexists(self.folder / FAILURE)
        try:
            if run := finished(self.folder):
                run.verify()
                found = result.read(run)
                self._compare(found.config)
                warn_unverified([run])
                return Look("finished", seconds=float(found.facts["seconds"]["total"]))
            if not failed and os.path.lexists(self.folder / CONFIG):
                self._compare(result.configuration(Finished(self.folder, None, {})))
        except (DataError, OSError) as error:
            return Look("damaged", str(error))
        return Look("failed" if failed else "open")

    def _compare(self, config: Config | None) -> None:
        if config is None or grid.name(config) != self.folder.name:
            raise DataError(f"{self.folder / CONFIG} is missing, or of another cell.")

    @property
    def command(self) -> str:
        """The command that does this cell alone."""
        places = ["--archives", str(self.config.data.archives)] if getattr(self.config.data, "archives", None) else []
        return shlex.join(["python", "-m", "experiments.train", *command_line(self.config), *places])


class Looks:
    """What the folders of cells say; a finished cell is not read again, and a damaged one is reported once."""

    def __init__(self) -> None:
        self.seconds: dict[Path, float] = {}
        self._warned: set[Path] = set()

    def __call__(self, cell: Cell) -> str:
        """Return the state of a cell."""
        if cell.folder in self.seconds:
            return "finished"
        found = cell.look()
        if found.state == "finished":
            self.seconds[cell.folder] = found.seconds
        if found.state == "damaged" and cell.folder not in self._warned:
            self._warned.add(cell.folder)
            advice = "the cell is not done; --retry-failed moves its folder aside and does it again"
            print(in_short(f"{found.reason.rstrip('.')}: {advice}."), file=sys.stderr, flush=True)
        return found.state


@contextlib.contextmanager
def claim(cell: Cell, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a cell inside the block; give False at once when another process has it and `wait` is off.

    A cell that is trained by a command of its own belongs to that process: then too it is waited for, or False given.
    """
    locks = cell.folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(locks / cell.folder.name, wait=wait))
            with alone_in(cell.folder, wait=wait):
                pass
        except InUseError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run folder inside the block, if there is such a folder.

    Raises:
        InUseError: another process trains there, and `wait` is off.
    """
    with locked(folder / LOCK, wait=wait) if folder.is_dir() else contextlib.nullcontext():
        yield


def make_way(cell: Cell) -> bool:
    """Prepare the folder of a cell and tell whether its run goes on: one that was stopped or killed.

    What is left of a failed run, or of one that had just begun, is deleted, and a damaged one is moved to `.damaged`;
    never while another process trains there.
    """
    if not cell.folder.exists():
        return False
    with alone_in(cell.folder):
        state = cell.look().state
        if state in ("open", "finished") and (cell.folder / CONFIG).exists():
            return True
        place = cell.folder.parent / (".damaged" if state == "damaged" else ".trash")
        place.mkdir(exist_ok=True)
        names = (f"{cell.folder.name}-{number}" for number in range(1, 1_000_000))
        target = next(place / name for name in names if not os.path.lexists(place / name))
        os.rename(cell.folder, target)
        if state == "damaged":
            print(f"{cell.folder.name} was damaged: its folder is now {target}.", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(target)
    return False


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
    try:
        if make_way(cell):
            config = dataclasses.replace(config, resume=cell.folder)
        # What a run shows while it trains stands in its metrics.jsonl too.
        with contextlib.redirect_stderr(io.StringIO()):
            return in_words(loop.train(config, task_of(config)))
    except StoppedError:
        raise  # the sweep stops too, and the cell stays open
    except InUseError as error:
        return f"open: {error}"
    except Exception as error:
        code = exit_code(error)
        what = str(error) if code > 1 else f"{type(error).__name__}: {error}"
        record = {"error": what, "exit_code": code, "config": to_dict(cell.config), "traceback": traceback.format_exc()}
        with alone_in(cell.folder):
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

    def __init__(self, cells: list[Cell], look: Looks):
        self._cells = cells
        self._look = look
        self._before = self._finished()
        self._began = time.perf_counter()

    def _finished(self) -> set[Path]:
        return {cell.folder for cell in self._cells if self._look(cell) == "finished"}

    def __str__(self) -> str:
        """How many cells are finished, and the time left at the pace of all processes together."""
        finished, seconds = self._finished(), self._look.seconds
        done = f"{len(finished)} of {len(self._cells)} finished"
        costs: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell in self._cells:
            if cell.folder in finished:
                costs[cell.config.task, cell.config.encoder].append(seconds[cell.folder])
        new = sum(seconds[folder] for folder in finished - self._before)
        if not new:
            return done
        usual = statistics.fmean(seconds.values())
        open_cells = [cell.config for cell in self._cells if self._look(cell) == "open"]
        ahead = sum(statistics.fmean(costs.get((c.task, c.encoder), [usual])) for c in open_cells)
        minutes = (time.perf_counter() - self._began) * ahead / new / 60
        return f"{done}, about {minutes // 60:.0f} h {minutes % 60:.0f} min left"


def sweep(cells: list[Cell], *, retry_failed: bool) -> None:
    """Do every open cell: first those that no other process is at, then what others have left.

    With `retry_failed`, those that have failed and those that are damaged are done again.
    """
    look = Looks()
    task_of, forecast, tried = LastTask(), Forecast(cells, look), set()

    def is_due(cell: Cell) -> bool:
        state = look(cell)
        return state == "open" or (state != "finished" and retry_failed and cell.folder not in tried)

    for wait in (False, True):
        for cell in cells:
            if not is_due(cell):
                continue
            with claim(cell, wait=wait) as mine:
                # Asked again, because the process that had the lock may have finished the cell.
                if not mine or not is_due(cell):
                    continue
                tried.add(cell.folder)
                began = time.perf_counter()
                outcome = run_cell(cell, task_of)
                print(f"{cell.folder.name}: {outcome}\n  {cell.command}", flush=True)
                print(f"{time.perf_counter() - began:.0f} s; {forecast}", file=sys.stderr, flush=True)
    states = {cell.folder: look(cell) for cell in cells}
    undone = [folder for folder, state in states.items() if state != "finished"]
    if undone:
        first = f"the first is {undone[0]} ({states[undone[0]]})"
        raise CellsFailedError(
            f"{len(undone)} of {len(cells)} cells failed, {first}: see {FAILURE}, then --retry-failed."
        )
