"""Seeded fuzzing of what the harness reads.

    python -m tests.harness.fuzz files --count 2000 --seed 0 [--first N]

Every case must end in a result or in one line: no traceback, no hang over 60 s, no more than 2 GB of memory, and no
other result without a message. Cases run in a worker process with a limit of memory; a new one follows where one hangs
or dies. A kind is a module `fuzz_KIND` with a function `case(number, seed, folder)`, which returns what was tried, how
it ended, and the message.
"""

import argparse
import importlib
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from experiments.run.environment import peak_memory

HANG, MEMORY = 60, 2 * 2**30
STARTING = 600
"""Seconds in which a worker must have loaded its modules and made its specimens; no case has begun then."""
GOOD = ("one line", "the same", "read")
BAD = ("traceback", "hang", "silent", "died")


def work(kind: str, seed: int, first: int, count: int) -> None:
    """Run cases, one JSON line each."""
    module = importlib.import_module(f"tests.harness.fuzz_{kind}")
    if not getattr(module, "RESERVES", False):  # addresses beyond what it uses: then only the peak is looked at
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    getattr(module, "prepare", lambda: None)()
    print(json.dumps({"ready": True}), flush=True)
    for number in range(first, first + count):
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        began = time.perf_counter()
        try:
            tried, outcome, message = module.case(number, seed, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        peak = peak_memory()
        if peak > MEMORY:
            outcome, message = "died", f"{peak} bytes of memory"
        print(json.dumps([number, tried, outcome, message, time.perf_counter() - began, peak]), flush=True)


def cases(kind: str, seed: int, first: int, count: int):
    """Yield [number, what was tried, outcome, message, seconds, bytes] of every case."""
    end = first + count
    while first < end:
        command = [sys.executable, "-m", "tests.harness.fuzz", kind, "--seed", f"{seed}", "--worker"]
        worker = subprocess.Popen(
            [*command, "--first", f"{first}", "--count", f"{end - first}"], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        lines: queue.Queue[str] = queue.Queue()
        limit = STARTING
        reader = threading.Thread(target=_pass_on, args=(worker.stdout, lines), daemon=True)
        reader.start()
        try:
            while first < end:
                line = lines.get(timeout=limit)
                limit = HANG
                if not line:
                    yield [first, "", "died", f"exit code {worker.wait()}", 0, 0]
                    first += 1
                    break
                if isinstance(found := json.loads(line), list):
                    yield found
                    first += 1
        except queue.Empty:
            yield [first, "", "hang", f"more than {HANG} s", HANG, 0]
            first += 1
        finally:
            worker.kill()
            worker.wait()
            reader.join()


def _pass_on(stream, lines) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")


def run(kind: str, seed: int, count: int, first: int = 0) -> tuple[str, list[str]]:
    """Return the figures of some cases in words, and a line for every case that ended badly."""
    outcomes, failures, longest, most = Counter(), [], 0.0, 0
    for number, tried, outcome, message, seconds, peak in cases(kind, seed, first, count):
        outcomes[outcome] += 1
        longest, most = max(longest, seconds), max(most, peak)
        if outcome not in GOOD:
            failures.append(f"{kind} --seed {seed} --first {number} --count 1: {outcome}, {tried}: {message}")
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in (*GOOD, *BAD))
    figures = (
        f"{sum(outcomes.values())} {kind}, seed {seed}: {counts}; longest {longest:.1f} s, memory {most / 1e9:.2f} GB"
    )
    return figures, failures


def main() -> int:
    """Print the figures of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind")
    for name, default in {"count": 2000, "seed": 0, "first": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    if given.worker:
        work(given.kind, given.seed, given.first, given.count)
        return 0
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads count as memory
    figures, failures = run(given.kind, given.seed, given.count, given.first)
    print(*failures, figures, sep="\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
