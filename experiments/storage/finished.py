"""Finished runs on disk: what is read of one is what was written, or the file that differs is named."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import object_of
from experiments.storage import manifest
from experiments.storage.manifest import MANIFEST, Manifest
from experiments.storage.run_folder import SEALED, SUMMARY, passes

EAGER = 2**20
"""Files of at most so many bytes are compared whole when a run is opened: a report of many runs stays fast."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The folder of a finished run; what is read of a file is compared with the manifest."""

    folder: Path
    manifest: Manifest | None
    """None for a run from before there were manifests."""
    summary: dict[str, Any]

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return (self.folder / name).exists() if self.manifest is None else name in self.manifest.files

    def content(self, name: str, most: int = files.MOST) -> bytes:
        """Return what a file holds, at most `most` bytes."""
        if self.manifest is None:
            return files.content(self.folder / name, most)
        with _naming(self.folder):
            return self.manifest.content(name, most)

    def read_object(self, name: str) -> dict[str, Any]:
        """Return the JSON object of a file."""
        path = self.folder / name
        return object_of(files.text(self.content(name), path), path)

    def verify(self) -> None:
        """Raise DataError naming the first file that is not as it was written, whatever its size."""
        if self.manifest is not None:
            with _naming(self.folder):
                self.manifest.check(None, passes)


def finished(folder: Path) -> Finished | None:
    """Return the run of a folder, or None where there is none that is finished.

    A run is finished when its manifest is written. Names, kinds and sizes of all files are compared with it here, and
    the content of those that are not large; the content of the others is when they are read, or by `verify`.

    Raises:
        DataError: a file is not as it was written.
    """
    if not os.path.lexists(folder / MANIFEST):
        if not os.path.lexists(folder / SUMMARY):
            return None
        before = Finished(folder, None, {})
        summary = before.read_object(SUMMARY)
        return None if SEALED in summary else dataclasses.replace(before, summary=summary)
    run = open_sealed(folder)
    return dataclasses.replace(run, summary=run.read_object(SUMMARY))


def open_sealed(folder: Path) -> Finished:
    """Return a folder that has a manifest, without a summary; compared with it as by `finished`, or DataError."""
    with _naming(folder):
        found = manifest.read(folder)
        found.check(EAGER, passes)
    return Finished(folder, found, {})


def finished_run(folder: Path) -> Finished:
    """Return the finished run of a folder, or raise DataError."""
    run = finished(folder)
    if run is None:
        raise DataError(why_not_finished(folder))
    return run


def why_not_finished(folder: Path) -> str:
    """Return why a folder has no finished run."""
    if os.path.lexists(folder / SUMMARY):
        return f"{folder} has {SUMMARY} but no {MANIFEST}: the run was cut off, or it was changed; --resume it."
    found = f"has no {SUMMARY}" if os.path.lexists(folder) else "does not exist"
    return f"{folder} {found}: give the folder of a finished run."


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Let the message of a DataError begin with the name of a folder."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{folder} is not as it was written: {error}".rstrip(".") + ".") from None


def warn_unverified(runs: Sequence[Finished | None]) -> None:
    """Say in one line which of some runs are from before there were manifests; the same line is printed once."""
    before = [run.folder for run in runs if run is not None and run.manifest is None]
    if before:
        which = f"{before[0]} has" if len(before) == 1 else f"{len(before)} run folders, as {before[0]}, have"
        _print_once(f"{which} no {MANIFEST}, being older than manifests: nothing shows that the files are as written.")


@functools.cache
def _print_once(sentence: str) -> None:
    print(sentence, file=sys.stderr)
