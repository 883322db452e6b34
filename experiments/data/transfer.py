"""Transfers that end: over HTTP, or by the client of a package registry, within a time that is bounded."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from experiments.base.errors import NetworkError

REACH_SECONDS = 1.5
REGISTRY = "https://pypi.org"
TRIES, FIRST_PAUSE = 3, 0.5
MOST = 2**31
"""Bytes of a file that is fetched."""
PATIENCE, SLOWEST = 20.0, 1000
"""A transfer ends when fewer than SLOWEST bytes a second come in PATIENCE seconds."""
LONGEST = 7200.0
"""Seconds of one transfer, and of one run of a client."""
_PIECE = 2**16

# A program that ends with the one that started it, even when that is killed, and is then replaced by the client.
_TIED = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def download(url: str, path: Path) -> None:
    """Fetch a file in at most three tries; one clear error when the host cannot be reached or is too slow."""
    check_reachable(url, path.name)
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_PAUSE * 2**attempt)
        transfer = _Transfer(url, path)
        transfer.wait()
        if not transfer.failure:
            return
        if transfer.final:
            break
    raise NetworkError(f"{url} cannot be fetched ({transfer.failure}): get {path.name} and give --archives DIR.")


class _Transfer(threading.Thread):
    """One try; in a thread, because names, connections, headers and content all come as slowly as they like."""

    def __init__(self, url: str, path: Path):
        super().__init__(daemon=True)
        self.url, self.path = url, path
        self.failure = ""
        self.final = False
        """Whether another try would fail in the same way."""
        self._received, self._given_up = 0, False
        self._disk: OSError | None = None

    def wait(self) -> None:
        """Fetch, and return when the file is there, or `failure` says why it is not."""
        ends, before = time.monotonic() + LONGEST, 0
        with self.path.open("wb") as self._file:
            self.start()
            self.join(PATIENCE)
            while self.is_alive():
                came = self._received - before
                if came < SLOWEST * PATIENCE or time.monotonic() > ends:
                    self._given_up = self.final = True
                    self.failure = f"{came} bytes came in the last {PATIENCE:g} s"
                    return
                before = self._received
                self.join(PATIENCE)
            if self._disk:
                raise self._disk

    def run(self) -> None:
        """Fetch; what is wrong is noted, since nobody sees what a thread raises."""
        try:
            with urllib.request.urlopen(self.url, timeout=PATIENCE) as response:
                self._failed(self._copied(response, response.headers.get("Content-Length")))
        except urllib.error.HTTPError as error:
            self._failed(f"the server answers {error.code}", final=error.code < 500)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._failed(str(error) or type(error).__name__)

    def _failed(self, failure: str, *, final: bool = False) -> None:
        if not self._given_up:
            self.failure, self.final = failure, final

    def _copied(self, response: http.client.HTTPResponse, announced: str | None) -> str:
        """Write what comes, and return what is wrong with it."""
        if announced is not None and not (announced.isdecimal() and int(announced[:20]) <= MOST):
            return f"it announces {announced!r} bytes"
        while not self._given_up and (piece := response.read1(_PIECE)):
            try:
                self._file.write(piece)
            except OSError as error:
                self._disk = error
                raise
            self._received += len(piece)
            if self._received > MOST:
                return f"more than {MOST} bytes came"
        whole = announced is None or self._received == int(announced)
        return "" if whole else f"{self.path.name} ended early"


def check_reachable(url: str, name: str) -> None:
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


def pip_download(requirement: str, folder: Path, name: str) -> str:
    """Fetch a package with pip; return the reason that it gives where it cannot."""
    # Where the user names registries, pip alone knows which of them must answer; it takes its time when none does.
    named = _client(sys.executable, "-m", "pip", "config", "list").stdout
    if not any(option in named for option in ("index-url", "no-index", "find-links")):
        check_reachable(REGISTRY, name)
    options = "--no-deps --only-binary :all: --quiet --disable-pip-version-check --retries 1 --timeout 10"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), requirement]
    return (_client(*command).stderr.strip().splitlines() or [""])[-1]


def npm_pack(requirement: str, folder: Path, name: str) -> str:
    """Fetch a package with npm; return the reason that it gives where it cannot."""
    npm = shutil.which("npm")
    if npm is None:
        return f"npm, which would bring {name}, is not installed"
    options = ["--ignore-scripts", "--fetch-retries", "0", "--fetch-timeout", "10000", "--pack-destination"]
    lines = _client(npm, "pack", *options, str(folder), requirement).stderr.splitlines()
    return next((line for line in lines if line.startswith(("npm error", "npm ERR!"))), "")


def _client(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a client of a registry, which ends when this process does."""
    tied = [sys.executable, "-I", "-c", _TIED, str(os.getpid()), *command]
    run = partial(subprocess.run, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        return run(tied, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(tied, 1, "", f"npm error no end after {LONGEST:g} s")
