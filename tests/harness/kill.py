"""Kill -9 at random times over one training: `python -m tests.harness.kill --kills 200` prints what was lost.

Every session is a fork of this process, which has loaded the modules but started no device, and compiled programs are
kept on disk, so that the time goes into restoring, training and saving: the places that a kill should hit. Every step
is saved until the last kill. The unbroken run saves only its last step.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.base.errors import DataError
from experiments.run.journal import Journal
from experiments.run.saver import Saver
from experiments.run.step import State
from experiments.storage import checkpoints
from experiments.train import main as train

OPTIONS = """
--task needles --data.size 80 --data.length 4 --data.max-len 8 --data.batch-size 8 --data.buckets 1
--encoder bag --encode.features 8 --pooler attention --pool.hidden 8
--evaluations 1 --optim.average 0.9 --optim.accumulate 3 --save.minutes 0 --devices.count 1
"""
STEPS_AN_EPOCH = 8
STEPS_A_KILL, MOST_STEPS = 32, 6
"""Training is long enough not to end among the kills: a session lives for at most so many steps."""


def session(arguments: list[str], log: Path, last: int | None = None) -> int:
    """Start a training in a process of its own, which saves every step or only the last one; return its number."""
    child = os.fork()
    if child:
        return child
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def serve(saver: Saver, request: int, step: int, state: State, journal: Journal) -> None:
        if step == last:
            saver.save(step, state, journal)

    Saver.discard = lambda self: None  # type: ignore[method-assign]  # the last state is to be compared
    if last is not None:
        Saver.serve = serve  # type: ignore[method-assign]
    os._exit(train(arguments))


def newest_step(folder: Path) -> int:
    """Return the newest step that verifies, reading only; 0 if there is none."""
    for path in checkpoints.steps(folder / "checkpoints"):
        try:
            checkpoints.verify(path)
        except DataError:
            continue
        return int(path.name)
    return 0


def listed(folder: Path) -> int:
    """Return the newest step that has a name; 0 if there is none."""
    found = checkpoints.steps(folder / "checkpoints")
    return int(found[0].name) if found else 0


def fingerprint(folder: Path) -> dict[str, str]:
    """Return SHA-256 of the last state (parameters, optimizer, average, step, best), of the records, of the result."""
    last = checkpoints.steps(folder / "checkpoints")[0]
    with ocp.PyTreeCheckpointer() as checkpointer:
        arrays = checkpointer.restore(last.absolute() / checkpoints.ARRAYS)
    state = hashlib.sha256()
    for name in sorted(arrays):
        state.update(name.encode() + np.asarray(arrays[name]).tobytes())
    summary = json.loads((folder / "summary.json").read_text())
    result = {name: summary[name] for name in ("test", "validation", "p", "steps", "parameters", "data")}
    return {
        "state": state.hexdigest(),
        "records": hashlib.sha256((folder / "metrics.jsonl").read_bytes()).hexdigest(),
        "result": hashlib.sha256(json.dumps(result).encode()).hexdigest(),
    }


def main() -> int:
    """Train unbroken, then with kills; return 0 if nothing was lost and nothing differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, help="longest life of a session; default: that of the unbroken run")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    steps = STEPS_A_KILL * options.kills
    options.out.mkdir(parents=True, exist_ok=True)
    arguments, log = [*OPTIONS.split(), "--epochs", str(steps // STEPS_AN_EPOCH)], options.out / "log"
    whole, broken = options.out / "whole", options.out / "broken"

    jax.config.update("jax_compilation_cache_dir", str(options.out / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    began = time.monotonic()
    _, status = os.waitpid(session([*arguments, "--out", str(whole)], log, last=steps), 0)
    assert status == 0, log.read_text()
    reach = options.seconds or time.monotonic() - began

    dice, start = random.Random(0), ["--out", str(broken)]
    kills = lost = saved = 0
    while True:
        resume = (broken / "config.json").exists()
        enough, life = kills == options.kills, dice.randint(1, MOST_STEPS)
        child = session(["--resume", str(broken)] if resume else [*arguments, *start], log, steps if enough else None)
        end = time.monotonic() + (3600 if enough else dice.uniform(0, reach))
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.002)
            done, status = os.waitpid(child, os.WNOHANG)
            if not enough and listed(broken) >= saved + life:
                time.sleep(dice.uniform(0, 0.2))
                break
        if done:
            assert status == 0, log.read_text()[-2000:]
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        now = newest_step(broken)
        lost += now < saved
        saved = now
    same = fingerprint(whole) == fingerprint(broken)
    leftover = [path.name for path in (broken / "checkpoints").iterdir() if not path.name.isdecimal()]
    quarantined = (broken / "quarantine").exists()
    print(
        f"{kills} kill -9 over one training of {steps} steps, the first {saved} of them among kills, "
        f"0 to {reach:.1f} s or {MOST_STEPS} steps after a start: {lost} saved steps lost, "
        f"{int(quarantined)} quarantines, {len(leftover)} leftovers; "
        f"state, records and result {'are those' if same else 'DIFFER from those'} of the unbroken run"
    )
    print(" ".join(f"{name} {digest}" for name, digest in fingerprint(broken).items()))
    return int(not same or lost > 0 or quarantined or bool(leftover))


if __name__ == "__main__":
    sys.exit(main())
