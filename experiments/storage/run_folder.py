"""The run folder: everything a reader or a report needs, and nothing that only this process knows."""

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from experiments.base import devices
from experiments.base.errors import UsageError

SUMMARY, FAILURE, METRICS, ENVIRONMENT = "summary.json", "failure.json", "metrics.jsonl", "environment.json"
VOCABULARY = "vocabulary.json"
SWEEP = "sweep.json"


def write_whole(path: Path, content: str) -> None:
    """Write a text file that appears whole or not at all, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # several processes may write the file of a sweep
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


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
        self._check()

    def __enter__(self) -> "RunFolder":
        """Make the folder and lock it; the system takes the lock back when the process ends, however it ends."""
        if not self._writes:
            return self
        lock = self._file(".lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UsageError(f"{self.path} is in use by another process: wait for it or stop it.") from None
        except OSError as error:  # Some network folders know no locks.
            print(
                f"{self.path} cannot be locked ({error.strerror}): let only one process write there.", file=sys.stderr
            )
        self._lock = lock
        self._check()  # Again: another process may have been faster.
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _check(self) -> None:
        """Raise UsageError where a new run would mix with what is there, or a link leads to where it must not write."""
        path = self.path
        if not self._writes or not path.exists():
            return
        is_empty = path.is_dir() and all(entry.name.startswith(".") for entry in path.iterdir())
        if not self._resume and not is_empty:
            raise UsageError(f"--out {path} exists and is not an empty folder: choose another one.")
        for entry in path.rglob("*"):
            if entry.is_symlink():
                raise UsageError(f"{entry} is a link, but a run writes in its folder only: put there what it leads to.")

    def write(self, name: str, content: str) -> None:
        """Write a text file."""
        if self._writes:
            write_whole(self.path / name, content)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(name, as_json(value))

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Add one line of JSON."""
        if self._writes:
            with self._file(name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def replace(self, name: str, records: list[dict[str, Any]]) -> None:
        """Make a file of lines of JSON hold these records; there is no file of none."""
        if records:
            self.write(name, "".join(json.dumps(record) + "\n" for record in records))
        elif self._writes:
            (self.path / name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        """Return the path of a file whose folder exists."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name
