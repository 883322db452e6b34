"""The run folder: everything a reader or a report needs, and nothing that only this process knows."""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from experiments.base import devices
from experiments.base.errors import InUseError, SaveError, UsageError
from experiments.storage import manifest
from experiments.storage.manifest import MANIFEST

SUMMARY, FAILURE, METRICS, ENVIRONMENT = "summary.json", "failure.json", "metrics.jsonl", "environment.json"
VOCABULARY, CHECKPOINTS, QUARANTINE = "vocabulary.json", "checkpoints", "quarantine"
PROFILE, TENSORBOARD = "profile", "tensorboard"
SWEEP = "sweep.json"
LOCK = ".lock"
ANALYSES = "analyses"
"""The folder of what was asked of the run later."""
SEALED = "sealed"
"""The entry of a summary that says that a manifest follows: without one the run is not finished, or was changed."""


def passes(name: str) -> bool:
    """Tell whether the manifest of a run is not about a name in its folder.

    It is about all that says what the run was and found. It is not about hidden names (the lock, what a killed process
    left half written), about checkpoints, which are deleted once it is written, about logs, beside which programs that
    show them write, and about analyses, which come later.
    """
    return name.startswith(".") or name in (CHECKPOINTS, QUARANTINE, PROFILE, TENSORBOARD, ANALYSES)


def write_whole(path: Path, content: str) -> None:
    """Write a text file that appears whole or not at all, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing_file(path) as file:
        file.write(content)


def locked(path: Path, *, wait: bool = False) -> IO[str]:
    """Return a lock file, open and locked; the system takes the lock back when the process ends, however it ends.

    Where the file system has no locks, as on some networks, this is reported and the file is returned all the same.

    Raises:
        InUseError: another process has it, and `wait` is off.
    """
    while True:
        # Not blocking: where something has put a pipe, opening it would wait for ever.
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666), "w")
        with contextlib.ExitStack() as failed:
            failed.callback(file.close)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise InUseError(f"{path.parent} is in use by another process: wait for it or stop it.") from None
            except OSError as error:
                reason = f"{path.parent} cannot be locked ({error.strerror})"
                print(f"{reason}: let only one process write there.", file=sys.stderr)
            # Who had the lock before may have deleted the folder, and a new one has another file.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    failed.pop_all()
                    return file


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes `folder` when the block ends without an error, and else disappears.

    Raises:
        UsageError: there is something already that is no empty folder.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"--out {folder} exists and is not an empty folder: choose another one.")
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        manifest.flush(partial)
        os.replace(partial, folder)  # fails where something is there by now that is no empty folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(path: Path, option: str) -> None:
    """Raise UsageError where a file that an option names exists, so that nothing is written over."""
    if os.path.lexists(path):
        raise UsageError(f"{option} {path} exists: choose another name.")


@contextlib.contextmanager
def appearing_path(path: Path) -> Iterator[Path]:
    """Give a file to write to, which becomes `path` at the end of the block, or after an error disappears."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # several processes may write the file of a sweep
    try:
        yield partial
        manifest.flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing_file(path: Path) -> Iterator[IO[str]]:
    """Give a text file to write into, which appears at the end of the block, or not at all."""
    with appearing_path(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


def as_json(value: Any) -> str:
    """Return JSON as a reader wants it."""
    return json.dumps(value, indent=2) + "\n"


class RunFolder:
    """A folder that files are added to; a file appears whole or not at all. While entered, no other process enters.

    A new run needs a folder that is new or empty, but for hidden files, which a killed start may leave. Where several
    processes train together, the first one writes, and to the others the folder is nothing.
    """

    def __init__(self, path: Path, resume: bool = False):
        self.path = path
        self._resume = resume
        self._writes = devices.is_first()
        self._lock: IO[str] | None = None
        self._entered: os.stat_result | None = None
        self._check()

    def __enter__(self) -> "RunFolder":
        """Make the folder and lock it."""
        if not self._writes:
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.path / LOCK)
        self._entered = os.stat(self.path)
        with contextlib.ExitStack() as failed:
            failed.callback(self._lock.close)
            self._check()  # Again: another process may have been faster.
            failed.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _check(self) -> None:
        """Raise UsageError where a new run would mix with what is there, or a file is none that a run may write."""
        path = self.path
        if not self._writes or not path.exists():
            return
        is_empty = path.is_dir() and all(entry.name.startswith(".") for entry in path.iterdir())
        if not self._resume and not is_empty:
            raise UsageError(f"--out {path} exists and is not an empty folder: choose another one.")
        for entry in path.rglob("*"):
            if entry.is_symlink():
                raise UsageError(f"{entry} is a link, but a run writes in its folder only: put there what it leads to.")
            if not stat.S_ISREG(mode := entry.stat().st_mode) and not stat.S_ISDIR(mode):
                raise UsageError(f"{entry} is no regular file, but a run writes such files only: delete it.")

    def check_place(self) -> None:
        """Raise SaveError where the path no longer leads to the folder that was entered, or checkpoints lead out."""
        if self._entered is None:
            return
        try:
            same = os.path.samestat(self._entered, os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            raise SaveError(f"the run folder {self.path} has disappeared: the run ends, and cannot be saved.") from None
        if not same:
            raise SaveError(f"{self.path} is no longer the folder of this run: the run ends, and cannot be saved.")
        if (self.path / CHECKPOINTS).is_symlink():
            raise SaveError(f"{self.path / CHECKPOINTS} has become a link: the run ends, and cannot be saved.")

    def write(self, name: str, content: str) -> None:
        """Write a text file."""
        if self._writes:
            self.check_place()
            write_whole(self.path / name, content)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(name, as_json(value))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary and then the manifest: only with it the run counts as finished."""
        self.write_json(SUMMARY, {**summary, SEALED: True})
        if self._writes:
            self.write(MANIFEST, manifest.text_for(self.path, {}, passes))
            manifest.flush(self.path)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add one line of JSON."""
        if self._writes:
            self.check_place()
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def replace(self, name: str, records: list[dict[str, Any]]) -> None:
        """Make a file of lines of JSON hold these records; there is no file of none."""
        if records:
            self.write(name, "".join(json.dumps(record) + "\n" for record in records))
        elif self._writes:
            (self.path / name).unlink(missing_ok=True)
