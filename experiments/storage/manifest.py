"""What a folder holds, by size and SHA-256: it counts only while it is as it was written.

`manifest.json` states every file of its folder and its own SHA-256. It finds damage, mixing and editing; it is no
signature, since who knows its form can write it anew.
"""

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.base.errors import DataError
from experiments.base.files import MOST, digest
from experiments.base.files import content as content_of
from experiments.base.json_files import read_object

MANIFEST = "manifest.json"

Passes = Callable[[str], bool]
"""Whether a manifest is not about a name, relative to its folder, nor about what lies below that name."""


def nothing(name: str) -> bool:
    """Pass over no name."""
    return False


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The manifest of a folder, which was read; `facts` is what it states beside the files."""

    folder: Path
    files: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]

    def check(self, most: int | None = None, passes: Passes = nothing) -> None:
        """Raise DataError naming the first file that is not as it was written.

        Names, kinds and sizes of all files are compared, and the content of those of at most `most` bytes, or of all.
        """
        found = dict(_entries(self.folder, passes))
        for name in sorted(self.files.keys() | found.keys()):
            if name not in found:
                raise DataError(f"{name} is missing")
            if name not in self.files:
                raise DataError(f"{name} does not belong there")
            size = self._size(name, found[name])
            if most is None or size <= most:
                self._compare(name, digest(self.folder / name))

    def content(self, name: str, most: int = MOST) -> bytes:
        """Return what a file of at most `most` bytes holds, or raise DataError where that is not what was written."""
        if name not in self.files:
            raise DataError(f"{name} does not belong there")
        self._size(name, os.lstat(self.folder / name))
        found = content_of(self.folder / name, most)
        self._compare(name, hashlib.sha256(found).hexdigest())
        return found

    def _size(self, name: str, status: os.stat_result) -> int:
        """Return the size of a file, compared."""
        _check_kind(name, status)
        if status.st_size != self.files[name]["size"]:
            raise DataError(f"{name} has another size than when it was written")
        return status.st_size

    def _compare(self, name: str, found: str) -> None:
        if found != self.files[name]["sha256"]:
            raise DataError(f"{name} has another SHA-256 than when it was written")


def read(folder: Path) -> Manifest:
    """Return the manifest of a folder, or raise DataError where it is not as it was written."""
    try:
        facts = read_object(folder / MANIFEST)
        stated = facts.pop("sha256")
        whole = stated == _digest(facts)
        found = {str(name): {"size": int(entry["size"]), "sha256": str(entry["sha256"])}
                 for name, entry in dict(facts.pop("files")).items()}  # fmt: skip
    except (DataError, OSError, LookupError, TypeError, ValueError):
        raise DataError(f"{MANIFEST} is missing or damaged") from None
    if not whole:
        raise DataError(f"{MANIFEST} was changed")
    return Manifest(folder, found, facts)


def text_for(folder: Path, facts: Mapping[str, Any], passes: Passes = nothing) -> str:
    """Return the manifest of a folder as it is now, its files flushed to the disk and read back."""
    found = {}
    for name, status in _entries(folder, passes):
        _check_kind(name, status)
        flush(folder / name)
        found[name] = {"size": status.st_size, "sha256": digest(folder / name)}
    content = {**facts, "files": found}
    return json.dumps({"sha256": _digest(content), **content}, indent=1)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: Path, passes: Passes, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name and the status of all that is in a folder, and in folders there, but these; links not followed."""
    for entry in sorted(os.scandir(folder / below), key=lambda entry: entry.name):
        name = f"{below}{entry.name}"
        if name == MANIFEST or passes(name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(folder, passes, f"{name}/")
        else:
            yield name, entry.stat(follow_symlinks=False)


def _check_kind(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{name} is {'a link' if stat.S_ISLNK(status.st_mode) else 'no regular file'}")


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
