"""Hostile input: every case is one line on stderr, a stated exit code, and no file outside the run folder.

`python -m pytest -q -s tests/harness/test_hostile.py` prints what the commands answer.
"""

import contextlib
import fcntl
import gzip
import io
import os
import pickle
import re
import resource
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import baseline, report, sweep, train
from experiments.base.errors import DataError
from experiments.run.config import parse_args, to_json
from experiments.storage import checkpoints
from experiments.storage.parameters import parse_parameters
from experiments.tasks import TASKS, sentences
from tests.harness.conftest import TINY
from tests.harness.test_checkpoints import signed
from tests.harness.test_config import BAD_LINES
from tests.harness.test_tasks import BAD_FILES

COMMANDS = {"train": train.main, "baseline": baseline.main, "sweep": sweep.main, "report": report.main}


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


PICKLE = pickle.dumps(Trap())
DIGITS, DEEP = "9" * 5000, "[" * 100_000
RESUME = ["train", "--resume", "run"]
ROW = "a text,x\nanother one,y\n"
LINES = "".join(f"sentence {n}\n" for n in range(100)).encode()


def table(content: str | bytes, *options: str, name: str = "a.csv", command: str = "train"):
    """Train on a file of the user's."""

    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return [command, "--task", "file", "--path", name, *options]

    return make


def made(make_file, *options: str, name: str = "a.csv", line: Sequence[str] = ()):
    """Run a command with something at hand that is no usual file."""

    def make(folder: Path) -> list[str]:
        (folder / name).parent.mkdir(exist_ok=True)
        make_file(folder / name)
        return list(line) or ["train", *options, name]

    return make


def sparse(path: Path) -> None:
    """Make a file of 20 GB that takes no space."""
    with path.open("wb") as file:
        file.truncate(20 * 2**30)


def flipped(folder: Path) -> list[str]:
    """Train on a set in an archive of which one bit changed, behind all that is needed of it."""
    random = np.random.default_rng(0).bytes(5000)
    line = archive({"raw/rt-polarity.pos": LINES, "raw/rt-polarity.neg": LINES, "zzz": random})(folder)
    path = folder / sentences.ARCHIVE.name
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    return line


def bomb(folder: Path) -> list[str]:
    """Train on a set in an archive that goes on with 3 GB of zeros."""
    line = archive({"raw/rt-polarity.pos": LINES, "raw/rt-polarity.neg": LINES})(folder)
    with (folder / sentences.ARCHIVE.name).open("ab") as file:
        file.write(gzip.compress(bytes(2**24)) * 192)
    return line


def options(*given: str):
    """Train with options."""
    return lambda folder: ["train", *TINY, *given]


def as_zip(place: int, value: int):
    """Train on a set in a zip archive of which a byte is changed in both headers."""

    def make(folder: Path) -> list[str]:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("raw/rt-polarity.pos", LINES)
        content = bytearray(packed.getvalue())
        content[place] = content[content.find(b"PK\x01\x02") + place + 2] = value
        (folder / sentences.ARCHIVE.name).write_bytes(content)
        return ["train", "--task", "mr", "--archives", "."]

    return make


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
        return ["train", "--task", "toy", "--encoder", "bag", "--pooler", "mean", "--encode.vectors", "vectors.txt"]

    return make


def resumed(old: str, new: str):
    """Resume a run whose config.json was edited."""

    def make(folder: Path) -> list[str]:
        (folder / "run").mkdir()
        config = to_json(parse_args(TINY))
        assert old in config
        (folder / "run" / "config.json").write_text(config.replace(old, new))
        return RESUME

    return make


def finished(summary: str):
    """Resume a run that is finished, as its summary says."""

    def make(folder: Path) -> list[str]:
        line = resumed("", "")(folder)
        (folder / "run" / "summary.json").write_text(summary)
        return line

    return make


def linked(name: str):
    """Resume a run in which a name leads to a folder of the user's that looks like one of checkpoints."""

    def make(folder: Path) -> list[str]:
        line = resumed("", "")(folder)
        (folder / "photos" / "2023").mkdir(parents=True)
        (folder / "photos" / "2023" / "a.jpg").write_text("mine")
        (folder / "run" / name).symlink_to(folder / "photos")
        return line

    return make


def written(name: str, content: str | bytes, *line: str):
    """Run a command with a file at hand."""

    def make(folder: Path) -> list[str]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
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
    "JSON of 5000 digits": (65, table(f'{{"text": "a", "label": {DIGITS}}}\n', name="a.jsonl")),
    "JSON nested 100,000 deep": (65, table(DEEP, name="a.jsonl")),
    "half of a character": (65, table('{"text": "a\\ud800", "label": "x"}\n', name="a.jsonl")),
    "a line break in the name of a column": (65, table('"on\ne",two,label\na,b,x\n')),
    "JSON that is no object": (65, table('[["a", "x"]]\n', name="a.json")),
    "an archive cut short": (65, archive({"raw/rt-polarity.pos": LINES * 50, "raw/rt-polarity.neg": LINES}, cut=40)),
    "an archive without the file": (65, archive({"raw/rt-polarity.pos": LINES})),
    "a page instead of the archive": (
        65,
        written(sentences.ARCHIVE.name, "<html>not found</html>", "train", "--task", "mr", "--archives", "."),
    ),
    "an archive with a password": (65, as_zip(6, 1)),
    "an archive of an unknown compression": (65, as_zip(8, 99)),
    "no archive": (65, lambda folder: ["train", "--task", "mr", "--archives", "."]),
    "a refused connection": (69, lambda folder: ["train", "--task", "trec", "--data.cache", "cache"]),
    "no network and pip's own registry": (69, lambda folder: ["train", "--task", "r8", "--data.cache", "cache"]),
    "a registry that refuses": (69, lambda folder: ["train", "--task", "r8", "--data.cache", "cache"]),
    "vectors that are no numbers": (65, vectors(b"the 0.1 0.2\na x y\n")),
    "a pickle as vectors": (65, vectors(PICKLE)),
    "vectors of 9...9 numbers": (65, vectors(f"1 {DIGITS}\n".encode())),
    "vectors that are not finite": (65, vectors(b"the nan nan\n")),
    "a run folder that is a file": (2, written("run", "mine", "train", *TINY, "--out", "run")),
    "a run folder in use": (2, written("run/.lock", "", "train", *TINY, "--pooler", "mean", "--out", "run")),
    "a name that is too long": (74, options("--out", "x" * 300)),
    "a run folder below a file": (74, written("a", "mine", "train", *TINY, "--out", "a/run")),
    "a read-only folder": (74, options("--out", "/sys/run")),
    "a name with a line break": (2, written("a\nb", "mine", "train", *TINY, "--out", "a\nb")),
    "a full disk": (74, options("--out", "run")),
    "nothing to resume": (2, lambda folder: ["train", "--resume", "run"]),
    "a file to resume": (2, written("run", "mine", *RESUME)),
    "a folder without config.json": (2, written("run/notes", "mine", *RESUME)),
    "config.json of another program": (2, written("run/config.json", '{"hidden_size": 768}', *RESUME)),
    "config.json that is no text": (2, written("run/config.json", b"\xff\xfe\0", *RESUME)),
    "a pickle as config.json": (2, written("run/config.json", PICKLE, *RESUME)),
    "config.json nested 100,000 deep": (2, written("run/config.json", DEEP, *RESUME)),
    "config.json with 5000 digits": (2, resumed('"epochs": 4', f'"epochs": {DIGITS}')),
    "config.json with 10^400": (2, resumed('"learning_rate": 0.03', f'"learning_rate": 1{"0" * 400}')),
    "config.json with 1e999": (2, resumed('"learning_rate": 0.03', '"learning_rate": 1e999')),
    "config.json with a zero byte": (2, resumed('"out": null', '"out": "a\\u0000b"')),
    "checkpoints that lead out": (2, linked("checkpoints")),
    "a lock that leads out": (2, linked(".lock")),
    "quarantine that leads out": (2, linked("quarantine")),
    "a finished run whose summary is torn": (65, finished('{"test": ')),
    "a finished run of another program": (65, finished('{"seconds": 3}')),
    "a pickle as summary": (65, written("run/summary.json", PICKLE, "report", "run")),
    "config.json with an unknown key": (2, resumed('"epochs"', '"epohcs"')),
    "config.json with a bad value": (2, resumed('"epochs": 4', '"epochs": "4"')),
    "config.json cut short": (2, resumed("\n}\n", "\n")),
    "a grid with an unknown key": (2, written("g.toml", 'poler = "mean"\n', "sweep", "g.toml", "--out", "run")),
    "a grid of 5000 digits": (2, written("g.toml", f"seed = {DIGITS}", "sweep", "g.toml", "--out", "run")),
    "a grid nested 100,000 deep": (2, written("g.toml", f"seed = {DEEP}", "sweep", "g.toml", "--out", "run")),
    "a grid that is no TOML": (2, written("g.toml", "task = [\n", "sweep", "g.toml", "--out", "run")),
    "a report of nothing": (65, lambda folder: ["report", "."]),
    "a summary that is no JSON": (65, written("run/summary.json", "{", "report", "run")),
    "a pipe as table": (65, made(os.mkfifo, "--task", "file", "--path")),
    "a device as table": (65, lambda folder: ["train", "--task", "file", "--path", "/dev/zero"]),
    "noise as table": (65, lambda folder: ["train", "--task", "file", "--path", "/dev/urandom"]),
    "20 GB of nothing as table": (65, made(sparse, "--task", "file", "--path")),
    "a pipe as vectors": (65, made(os.mkfifo, *TINY, "--encode.vectors")),
    "a pipe as config.json": (2, made(os.mkfifo, name="run/config.json", line=RESUME)),
    "a pipe as grid": (65, made(os.mkfifo, name="g.toml", line=["sweep", "g.toml", "--out", "run"])),
    "two columns of one name": (65, table("text,label,label\n" + ROW)),
    "a million columns": (65, table("x," * 10**6 + "\n")),
    "a name of a thousand characters": (2, options("--encode.features", "9" * 1000)),
    "an option of a thousand characters": (2, options("--" + "x" * 1000, "1")),
    "a task of a thousand characters": (2, lambda folder: ["train", "--task", "x" * 1000]),
    "a path of a thousand characters": (74, lambda folder: ["train", "--task", "file", "--path", "x" * 1000]),
    "a baseline of ten texts": (
        65,
        table("text,label\n" + "".join(f"t{n},{n % 2}\n" for n in range(10)), command="baseline"),
    ),
    "a baseline of sixty words": (
        65,
        table("text,label\n" + "".join(f"t{n},{n % 2}\n" for n in range(60)), command="baseline"),
    ),
    "a baseline of one class": (
        65,
        table("text,label,split\na b,x,train\na b,x,train\na,y,dev\na,y,test\n", command="baseline"),
    ),
    "a bit of an archive flipped": (65, flipped),
    "a bomb of three gigabytes": (65, bomb),
    "a baseline of an unknown task": (2, lambda folder: ["baseline", "--task", "wordnt"]),
}


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Size and first megabytes of every file below a folder but those in the run folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and folder / "run" not in path.parents)
    return {path: (path.stat().st_size, beginning(path)) for path in found}


def beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2**22)


def test_no_pickle_is_executed(tmp_path, monkeypatch):
    """Neither as a file nor inside one; in the table above pickles stand where commands look."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE).close()
    Path("executed").unlink()  # the trap works
    Path("raw.npz").write_bytes(PICKLE)
    np.savez("inside.npz", w=np.array([Trap()], dtype=object))
    for name in ("raw.npz", "inside.npz"):
        with pytest.raises(DataError, match=f"^{name} cannot be read: .*pickle"):
            parse_parameters(Path(name).read_bytes(), name, nnx.State({"w": nnx.Param(jnp.ones(1))}))
    tree = {"w": jnp.ones(3)}
    whole = checkpoints.write(tmp_path / "whole", 1, tree, {})
    for file in [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]:
        path = shutil.copytree(whole, tmp_path / "1")
        (path / file).write_bytes(PICKLE)
        if file.name != checkpoints.MANIFEST:
            signed(path)  # by one who knows how
        with contextlib.suppress(DataError):  # orbax does not need every file
            checkpoints.load(path, tree)
        shutil.rmtree(path)
    assert not Path("executed").exists()


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
    err = re.sub(r"^experiments\.train: only \d+ texts for [^\n]*\n", "", err)  # of the toy task
    err = re.sub(r"^run has no manifest\.json, being older than manifests[^\n]*\n", "", err)
    assert re.fullmatch(rf"experiments\.{name}: [^\n]{{1,300}}\n", err)
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
