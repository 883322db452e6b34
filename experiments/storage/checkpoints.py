"""Steps on disk: a checkpoint counts when all of it is written, and is loaded only when all of it is as written.

`checkpoints/<step>` holds `arrays/` (written by orbax), `facts.json` and `manifest.json`, which states size and SHA-256
of every file and its own. It is made under a hidden name, flushed to the disk, and then renamed.
"""

import functools
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.base.errors import DataError
from experiments.base.json_files import read_object
from experiments.storage import manifest
from experiments.storage.manifest import MANIFEST, flush

ARRAYS, FACTS = "arrays", "facts.json"
PARTIAL, TRASH = ".partial-", ".trash-"


def named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their dotted names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def write(folder: Path, step: int, tree: Any, facts: dict[str, Any]) -> Path:
    """Write a step of NumPy arrays: it appears whole or not at all. Raises what the file system or orbax raises."""
    partial, final = folder / f"{PARTIAL}{step}", folder / str(step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _quiet(), _alone() as checkpointer:
        checkpointer.save(partial.absolute() / ARRAYS, args=ocp.args.PyTreeSave(named(tree)))
    (partial / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    shapes = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in named(tree).items()}
    text = manifest.text_for(partial, {"step": step, "arrays": shapes})
    (partial / MANIFEST).write_text(text, encoding="utf-8")
    for path in [partial / MANIFEST, *(path for path in partial.rglob("*") if path.is_dir()), partial]:
        flush(path)
    os.rename(partial, final)
    flush(folder)
    return final


def verify(path: Path) -> dict[str, Any]:
    """Return what the manifest of a checkpoint states, or raise DataError saying what is wrong with which file."""
    found = manifest.read(path)
    try:
        step, arrays = str(found.facts["step"]), dict(found.facts["arrays"])
    except (LookupError, TypeError, ValueError):
        raise DataError(f"{MANIFEST} is missing or damaged") from None
    if step != path.name:
        raise DataError(f"{MANIFEST} was changed")
    found.check()
    return {"step": step, "arrays": arrays}


def load(path: Path, expected: Any) -> tuple[Any, dict[str, Any]]:
    """Return the tree, placed as `expected` is, and the facts of a verified checkpoint."""
    stored = verify(path)["arrays"]
    leaves = named(expected)
    shapes = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}
    for name in sorted(stored.keys() | shapes.keys()):
        if stored.get(name) != shapes.get(name):
            have, want = stored.get(name, "nothing"), shapes.get(name, "nothing")
            raise DataError(f"checkpoint {path.name} holds {have} as {name!r}, this program expects {want}.")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), leaves)
    try:
        with _quiet(), _alone() as checkpointer:
            arrays = checkpointer.restore(path.absolute() / ARRAYS, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        facts = read_object(path / FACTS)
    except Exception as error:  # It verifies, so this is no damage; orbax has no class of its own for it.
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"checkpoint {path.name} has the form of another version ({reason}).") from None
    tree = jax.tree.unflatten(jax.tree.structure(expected), [arrays[name] for name in leaves])
    # A copy, because the first training step gives the memory of its state away.
    tree = jax.tree.map(lambda array, like: jax.device_put(array, like.sharding, may_alias=False), tree, expected)
    return tree, facts


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the newest first."""
    found = [path for path in folder.glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: -int(path.name))


def newest(folder: Path, quarantine: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that verifies, and a sentence on each newer one, which is moved to quarantine."""
    sentences = []
    for path in steps(folder):
        try:
            verify(path)
        except DataError as error:
            sentences.append(f"checkpoint {path.name} is damaged ({error}): it is now {_move(path, quarantine)}.")
        else:
            return path, sentences
    return None, sentences


def retire(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints; each disappears at once, by its name."""
    for path in steps(folder)[keep:]:
        os.rename(path, path.with_name(f"{TRASH}{path.name}"))
    sweep(folder)


def sweep(folder: Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for mark in (PARTIAL, TRASH):
        for path in folder.glob(f"{mark}*"):
            shutil.rmtree(path, ignore_errors=True)


def _alone() -> ocp.Checkpointer:
    """Return orbax for this process, which waits for no other one."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me))
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


@functools.cache
def _let_late_answers_go() -> None:
    """Print nothing when a thread of a save that has failed answers later.

    Orbax closes the event loop of a save with its first error, while the threads of its storage still write; each of
    them then finds the loop closed, after the error was raised here, and has nobody to tell.
    """
    before = sys.unraisablehook

    def hook(found: "sys.UnraisableHookArgs") -> None:
        trace = found.exc_traceback
        # Called from outside Python, so this is the outermost frame.
        if found.exc_type is not RuntimeError or trace is None or trace.tb_frame.f_code.co_name != _LATE:
            before(found)

    def wanted(record: logging.LogRecord) -> bool:
        # Of several writes that fail, orbax raises the first; asyncio logs the others when they are deleted.
        error = record.exc_info[1] if record.exc_info else None
        return PARTIAL not in str(error)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(wanted)


_LATE = "call_soon_threadsafe"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep orbax from printing the tracebacks of an error that it also raises."""
    _let_late_answers_go()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _move(path: Path, quarantine: Path) -> Path:
    """Move a checkpoint out of the way, under a name that is free."""
    quarantine.mkdir(exist_ok=True)
    names = (path.name if number == 1 else f"{path.name}-{number}" for number in range(1, 1_000_000))
    target = next(quarantine / name for name in names if not (quarantine / name).exists())
    os.rename(path, target)
    return target
