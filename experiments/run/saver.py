"""When a run saves itself, how it is found again, and what happens when saving fails or a signal asks to stop."""

import errno
import hashlib
import json
import os
import shutil
import signal
import time
from typing import Any

import jax

from experiments.base import devices
from experiments.base.contracts import Task
from experiments.base.errors import DataError, SaveError, StoppedError
from experiments.base.options import decisive
from experiments.run.clock import Clock
from experiments.run.config import Config
from experiments.run.environment import environment
from experiments.run.journal import Journal
from experiments.run.progress import Progress
from experiments.run.signals import Stop
from experiments.run.step import State
from experiments.storage import checkpoints
from experiments.storage.run_folder import CHECKPOINTS, QUARANTINE, RunFolder

FAILURES = 3
"""Saves that may fail in a row before the run ends."""
NOTHING = -1
"""Stands for the step of no checkpoint."""


def circumstances(config: Config, task: Task, read: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same when a run goes on (options, data), and what should be (versions)."""
    model = read["pretrained"]
    words = hashlib.sha256(json.dumps(task.codec.to_json()).encode()).hexdigest()
    facts = {
        "options": {name: str(value) for name, value in decisive(config).items()},
        "data": {"words": words, **task.describe(), **({"pretrained": model} if model else {})},
        "versions": environment(),
    }
    return json.loads(json.dumps(facts))  # as they will be read


class Saver:
    """Saves a run in its folder every few minutes and when it is asked to stop."""

    def __init__(
        self,
        config: Config,
        task: Task,
        read: dict[str, Any],
        folder: RunFolder,
        clock: Clock,
        stop: Stop,
        progress: Progress,
    ):
        self._options = config.save
        self._circumstances = circumstances(config, task, read)
        self._run = folder
        self._folder = folder.path / CHECKPOINTS
        self._clock = clock
        self._stop = stop
        self._progress = progress
        self._last = time.monotonic()
        self._saved: int | None = None
        self._failures = 0

    def restore(self, state: State, journal: Journal) -> State:
        """Return the newest good state of the folder, with the journal as it was then; the given ones if none is."""
        step = devices.agree(self._newest() if devices.is_first() else NOTHING)
        if step == NOTHING:
            self._progress.say("there is no checkpoint: the run starts at step 0.")
            journal.restore({}, state.tested)
            return state
        (state, best), facts = checkpoints.load(self._folder / str(step), (state, state.tested))
        if lacking := {"circumstances", "journal", "seconds"} - facts.keys():
            raise DataError(f"checkpoint {step} is of another program: its facts lack {', '.join(sorted(lacking))}.")
        self._compare(facts["circumstances"])
        journal.restore(facts["journal"], best)
        for name, seconds in facts["seconds"].items():
            self._clock.seconds[name] += seconds
        self._saved = step
        self._progress.say(f"going on from step {step}.")
        return state

    def _newest(self) -> int:
        """Tidy up and return the newest good step, or NOTHING."""
        checkpoints.sweep(self._folder)
        path, sentences = checkpoints.newest(self._folder, self._run.path / QUARANTINE)
        for sentence in sentences:
            self._progress.say(sentence)
        return NOTHING if path is None else int(path.name)

    def request(self) -> int:
        """Return what this process wants after the step that comes: 0 nothing, 1 a checkpoint, else a signal."""
        if self._stop.requested:
            return signal.Signals[self._stop.requested]
        return int(time.monotonic() - self._last >= 60 * self._options.minutes)

    def serve(self, request: int, step: int, state: State, journal: Journal) -> None:
        """Save where a checkpoint is requested; where a signal is, save and raise StoppedError.

        All processes must call this with the same request after the same step.
        """
        if not request:
            return
        if step != self._saved:
            with self._clock.measure("save"):
                self.save(step, state, journal)
        if request > 1:  # there is no signal 1 among SIGNALS
            asked = signal.Signals(request).name
            if step != self._saved:
                raise SaveError(f"stopped by {asked} at step {step}, which could not be saved; {self._good()}.")
            advice = f"go on with --resume {self._run.path}"
            raise StoppedError(f"stopped by {asked} at step {step}, which is saved: {advice}")

    def save(self, step: int, state: State, journal: Journal) -> None:
        """Save a step; a failure is reported, and only the third in a row ends the run."""
        self._last = time.monotonic()
        tree = devices.gather((state, journal.best_parameters))
        error = self._write(step, tree, journal) if devices.is_first() else None
        if devices.agree(error is not None):
            self._failures += 1
            reason = " ".join(str(error or "process 0 says why").split())[:200]
            sentence = f"step {step} could not be saved ({reason}); {self._good()}"
            if self._failures == FAILURES:
                raise SaveError(f"{sentence}, and this was failure {FAILURES} in a row.") from error
            self._progress.say(f"{sentence}; training goes on (failure {self._failures} of {FAILURES}).")
            return
        self._saved, self._failures = step, 0

    def _write(self, step: int, tree: Any, journal: Journal) -> Exception | None:
        """Write a step and delete what is then too old; return what went wrong."""
        facts = {
            "circumstances": self._circumstances,
            "journal": journal.snapshot(),
            "seconds": dict(self._clock.seconds),
        }
        self._run.check_place()
        try:
            self._check_space(tree)
            # What has just been written is read back before an older step goes.
            checkpoints.verify(checkpoints.write(self._folder, step, tree, facts))
        except (OSError, ValueError, RuntimeError, DataError) as error:
            checkpoints.sweep(self._folder)
            return error
        checkpoints.retire(self._folder, self._options.keep)
        return None

    def discard(self) -> None:
        """Delete the checkpoints of a finished run."""
        if devices.is_first():
            checkpoints.retire(self._folder, 0)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _good(self) -> str:
        """Return what can be relied on."""
        return "nothing is saved yet" if self._saved is None else f"the last saved step is {self._saved}"

    def _check_space(self, tree: Any) -> None:
        """Raise OSError unless twice the bytes of the arrays are free."""
        self._folder.mkdir(parents=True, exist_ok=True)
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {free} bytes are free, {needed} are needed")

    def _compare(self, stored: dict[str, Any]) -> None:
        """Raise DataError where options or data are no longer the same; tell where versions are not."""
        for kind, advice in (("options", "undo the change of config.json"), ("data", "give the run the same data")):
            for name, value in self._circumstances[kind].items():
                if stored[kind].get(name) != value:
                    was = stored[kind].get(name)
                    raise DataError(f"{name} of the {kind} was {was!r} when the run was saved, is {value!r}: {advice}.")
        for name, value in self._circumstances["versions"].items():
            if stored["versions"].get(name) != value:
                was = stored["versions"].get(name)
                self._progress.say(f"{name} was {was!r}, is {value!r}: the run goes on, but not bit for bit.")
