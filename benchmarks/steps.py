"""What pooling costs as a share of a training step: `python -m benchmarks.steps`.

Every model takes real training steps of the harness, on WordNet glosses; the models of an encoder differ in the pooler
alone. The steps of all of them are interleaved, and the share of a pooler is what its step takes beyond that of mean
pooling, median of the rounds. Prints a Markdown table.
"""

import dataclasses
import sys
from functools import partial
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.cli import Parser, UsageError, command, known
from benchmarks.programs import Program
from experiments import build
from experiments.clock import Clock
from experiments.config import default_config
from experiments.encoders import ENCODERS
from experiments.poolers import POOLERS
from experiments.steps import prepare

PROGRAM = "benchmarks.steps"
FREE = "mean"


def program(encoder: str, pooler: str, task: Any, config: Any) -> Program:
    """Return the training step of a model, compiled and warm; every run is the next step."""
    config = dataclasses.replace(default_config(encoder=encoder, pooler=pooler), data=config.data)
    state, programs = prepare(config, task, Clock())
    batch, held = task.train_batch(0, 0), [state]

    def run() -> Any:
        held[0], report = programs.train(held[0], batch)
        return report.loss.block_until_ready()

    run()
    return Program(pooler, encoder, run, lambda _: None, None)


def share(times: dict[str, np.ndarray], pooler: str) -> float:
    """Return the share of a step that is the pooler's."""
    return float(np.median(1 - times[FREE] / times[pooler]))


def run(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Measure the share of pooling in a training step.")
    parser.add_argument("--encoders", nargs="+", default=["cnn", "bigru", "transformer"], metavar="NAME")
    parser.add_argument("--poolers", nargs="+", default=["max", "attention", "learned_norm"], metavar="NAME")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="texts a step; default: 64")
    parser.add_argument("--max-len", type=int, default=40, metavar="T", help="words a text; default: 40")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="default: 25")
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.max_len, options.rounds) < 1:
        raise UsageError("--batch-size, --max-len and --rounds must be 1 or more")
    encoders = [known("encoder", name, ENCODERS) for name in options.encoders]
    poolers = [known("pooler", name, POOLERS) for name in options.poolers]
    config = default_config()
    data = dataclasses.replace(config.data, batch_size=options.batch_size, max_len=options.max_len, buckets=1)
    config = dataclasses.replace(config, data=data)
    task = build.task(config)
    print(f"| encoder, {options.batch_size} x {options.max_len} words | mean, ms a step | {' | '.join(poolers)} |")
    print(f"| --- | --- |{' --- |' * len(poolers)}")
    for encoder in encoders:
        programs = list(map(partial(program, encoder, task=task, config=config), dict.fromkeys([FREE, *poolers])))
        measured = timing.measure(programs, timing.host_clock, options.rounds, 0)
        times = {one.row: np.asarray(all_) for one, all_ in zip(programs, measured, strict=True)}
        shares = " | ".join(f"{share(times, pooler):.0%}" for pooler in poolers)
        print(f"| {encoder} | {np.median(times[FREE]):.1f} | {shares} |", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
