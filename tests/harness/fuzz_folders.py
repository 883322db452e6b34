"""Mutations of run folders: of the bytes of their files, of what these say, of which files there are and of what kind.

Two small runs of the same shapes are trained first. A case changes a copy of the first one, as it is or as it would be
from before there were manifests, and reads it in three ways: as a model, as a result, and as rows of a report. What has
a manifest must be read as it was or be refused. Without one only numbers can be checked: another word or parameter is
read, but a folder that is refused is refused in one line.
"""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import report, train
from experiments.base.errors import LONGEST, HarnessError, in_short
from experiments.run.result import result_of
from experiments.run.trained import load_run
from experiments.storage.manifest import MANIFEST
from experiments.storage.run_folder import SEALED, SUMMARY

OPTIONS = """
--task needles --data.size 40 --data.length 4 --data.max-len 8 --data.batch-size 8 --data.buckets 1 --epochs 1
--encoder bag --encode.features 8 --pooler learned_norm --evaluations 1 --devices.count 1
"""
RESERVES = True
"""JAX reserves more addresses than it uses."""
VALUES = [None, True, -1, 0, 5.0, 1e400, float("nan"), 10**400, "0.9", "", [], {}, [[1], 2], "x" * 1000]


@functools.cache
def specimens() -> tuple[Path, Path]:
    """Two finished runs."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-runs-"))
    for seed in (0, 1):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            assert train.main([*OPTIONS.split(), "--seed", str(seed), "--out", str(place / str(seed))]) == 0
    return place / "0", place / "1"


def reads(folder: Path) -> dict[str, str]:
    """What three readers find in a folder; the summary without what only names the folder."""

    def model() -> str:
        trained = load_run(folder)
        leaves = jax.tree.leaves(nnx.state(trained.objective))
        return f"{trained.config} {trained.codec.to_json()} {[np.asarray(leaf).tobytes().hex() for leaf in leaves]}"

    def facts() -> str:
        return json.dumps({name: value for name, value in result_of(folder).items() if name not in ("folder", SEALED)})

    def table() -> str:
        (run,) = report.records.collect([folder])
        rows = report.tables.results(report.records.rows([run]), {})
        return f"{rows.markdown()} {run.validations} {run.environment}"

    return {"model": ended(model), "result": ended(facts), "report": ended(table)}


def ended(read: Callable[[], str]) -> str:
    """What was read, or `one line` and the message, or `traceback` and the traceback."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return read()
    except (HarnessError, OSError) as error:
        line = in_short(error)
        whole = isinstance(error, OSError) or (line == str(error) and 0 < len(line) <= LONGEST)
        return f"{'one line' if whole else 'traceback'}: {line}"
    except BaseException:
        return f"traceback: {traceback.format_exc()}"


@functools.cache
def expected() -> dict[str, str]:
    """What is read of the first specimen."""
    found = reads(specimens()[0])
    assert not [what for what in found.values() if what.startswith(("one line", "traceback"))], found
    return found


def case(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """Return what was tried, how it ended, and the message."""
    draw = random.Random(f"{seed} {number}")
    before, copy = expected(), folder / "run"
    shutil.copytree(specimens()[0], copy)
    sealed = draw.random() < 0.6
    if not sealed:
        (copy / MANIFEST).unlink()
        summary = json.loads((copy / SUMMARY).read_text())
        (copy / SUMMARY).write_text(json.dumps({name: value for name, value in summary.items() if name != SEALED}))
    change = draw.choice([bits, cut, emptied, of_other, gone, special, value, stranger, line_gone])
    tried = f"{'sealed' if sealed else 'before manifests'}, {change.__name__} {change(copy, draw)}"
    found = reads(copy)
    for how, what in found.items():
        if what.startswith("traceback"):
            return tried, "traceback", f"{how}: {what}"
    refused = {how: what for how, what in found.items() if what.startswith("one line")}
    changed = [how for how, what in found.items() if how not in refused and what != before[how]]
    if changed and sealed:
        return tried, "silent", f"{changed} differ"
    if refused:
        return tried, "one line", next(iter(refused.values()))
    return tried, "read" if changed else "the same", ""


def names(folder: Path) -> list[str]:
    """The files of a folder, the lock left out."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def bits(folder: Path, draw: random.Random) -> str:
    """Flip some bits of a file."""
    name = draw.choice(names(folder))
    content = bytearray((folder / name).read_bytes())
    for _ in range(draw.choice([1, 1, 3, 50])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    (folder / name).write_bytes(content)
    return name


def cut(folder: Path, draw: random.Random) -> str:
    """Cut a file off."""
    name = draw.choice(names(folder))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: draw.randrange(len(content))])
    return name


def emptied(folder: Path, draw: random.Random) -> str:
    """Empty a file, or fill it with what is no content of any."""
    name = draw.choice(names(folder))
    (folder / name).write_bytes(draw.choice([b"", b"{}", b"[1]", b"\xff\xfe", b"[" * 100_000, b"PK\3\4", b"null"]))
    return name


def of_other(folder: Path, draw: random.Random) -> str:
    """Put the file of another run there."""
    name = draw.choice(names(folder))
    shutil.copy(specimens()[1] / name, folder / name)
    return name


def gone(folder: Path, draw: random.Random) -> str:
    """Delete a file."""
    name = draw.choice(names(folder))
    (folder / name).unlink()
    return name


def special(folder: Path, draw: random.Random) -> str:
    """Put a pipe, a folder, a link to a file, to a device or to nothing in the place of a file."""
    name, kind = draw.choice(names(folder)), draw.choice(["pipe", "folder", "copy", "/dev/zero", "nothing", "self"])
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        targets = {"copy": folder.parent / "elsewhere", "self": folder / name}
        (folder.parent / "elsewhere").write_bytes(content)
        (folder / name).symlink_to(targets.get(kind, kind))
    return f"{name} {kind}"


def value(folder: Path, draw: random.Random) -> str:
    """Change a value in a JSON file, at any depth."""
    name = draw.choice([name for name in names(folder) if name.endswith(".json")])
    content = json.loads((folder / name).read_text())
    place: Any = content
    while True:
        key = draw.choice([*place] if isinstance(place, dict) else [*range(len(place))])
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.3:
            break
        place = place[key]
    place[key] = draw.choice(VALUES)
    (folder / name).write_text(json.dumps(content))
    return f"{name} {key} {str(place[key])[:40]}"


def stranger(folder: Path, draw: random.Random) -> str:
    """Put a file there that does not belong."""
    name = draw.choice(["skipped.jsonl", "failure.json", "notes", "weights.npz", "a/b/c", "\x1b[2J", "\udcff"])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")
    return repr(name)


def line_gone(folder: Path, draw: random.Random) -> str:
    """Take a line away from a text file, or write one twice."""
    name = draw.choice([name for name in names(folder) if name.endswith((".json", ".jsonl"))])
    lines = (folder / name).read_text().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines[at : at + 1] = draw.choice([[], [lines[at]] * 2])
    (folder / name).write_text("".join(lines))
    return name


def prepare() -> None:
    """Train the specimens and read them once, so that no case waits for it."""
    expected()
