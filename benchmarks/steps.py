"""What pooling costs as a share of a training step: `python -m benchmarks.steps`.

Every model takes real training steps of the harness, on WordNet glosses; the models of an encoder differ in the pooler
alone. The steps of all of them are interleaved, and the share of a pooler is what its step takes beyond that of mean
pooling, median of the rounds. Prints a Markdown table. `--seeds N` adds a column: the time in which N models of the
first pooler that is named take a step at once, by vmap, over the time in which they take it in turn.
"""

import dataclasses
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.cli import Parser, UsageError, command, known
from benchmarks.programs import Program
from experiments.base import devices
from experiments.encoders import ENCODERS
from experiments.poolers import POOLERS
from experiments.run import build
from experiments.run.clock import Clock
from experiments.run.config import default_config
from experiments.run.loop import prepare
from experiments.run.step import Programs, StepBatch, train_step

PROGRAM = "benchmarks.steps"
FREE = "mean"


def program(encoder: str, pooler: str, task: Any, config: Any) -> Program:
    """Return the training step of a model, compiled and warm; every run is the next step."""
    config = dataclasses.replace(default_config(encoder=encoder, pooler=pooler), data=config.data)
    prepared = prepare(config, task)
    programs = Programs.of(prepared.recipe, prepared.noise, prepared.frozen, Clock())
    batch, held = batch_of(task, 0), [prepared.state]

    def run() -> Any:
        held[0], report = programs.train(held[0], batch)
        return report.loss.block_until_ready()

    run()
    return Program(pooler, encoder, run, lambda _: None, None)


def batch_of(task: Any, seed: int) -> Any:
    """Return the first batch of a seed as a training step takes it, on the device."""
    batch = task.train_batch(seed, 0)
    return devices.put_batch(StepBatch(batch, np.zeros(len(batch.weights), np.int32)))


def in_turn_and_at_once(encoder: str, pooler: str, task: Any, config: Any, seeds: int) -> list[Program]:
    """Return two programs that take a step of as many models as seeds, one after another and by vmap."""
    config = dataclasses.replace(default_config(encoder=encoder, pooler=pooler), data=config.data)
    prepared = [prepare(dataclasses.replace(config, seed=seed), task) for seed in range(seeds)]
    function = partial(train_step, prepared[0].recipe)
    inputs = [(one.noise, one.frozen, one.state, batch_of(task, seed)) for seed, one in enumerate(prepared)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs)
    alone, together = jax.jit(function), jax.jit(jax.vmap(function))
    runs = {
        "in turn": lambda: jax.block_until_ready([alone(*arguments) for arguments in inputs]),
        "at once": lambda: jax.block_until_ready(together(*stacked)),
    }
    for run in runs.values():
        run()
    return [Program(name, encoder, run, lambda _: None, None) for name, run in runs.items()]


def share(times: dict[str, np.ndarray], pooler: str) -> float:
    """Return the share of a step that is the pooler's."""
    return float(np.median(1 - times[FREE] / times[pooler]))


def run(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Measure the share of pooling in a training step.")
    parser.add_argument("--encoders", nargs="+", default=["cnn", "bigru", "transformer"], metavar="NAME")
    poolers = ["max", "attention", "learned_norm", "log_learned_norm"]
    parser.add_argument("--poolers", nargs="+", default=poolers, metavar="NAME")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="texts a step; default: 64")
    parser.add_argument("--max-len", type=int, default=40, metavar="T", help="words a text; default: 40")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="default: 25")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="add a column: N seeds at once; default: no")
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.max_len, options.rounds) < 1 or options.seeds < 0:
        raise UsageError("--batch-size, --max-len and --rounds must be 1 or more, --seeds 0 or more")
    encoders = [known("encoder", name, ENCODERS) for name in options.encoders]
    poolers = [known("pooler", name, POOLERS) for name in options.poolers]
    config = default_config()
    data = dataclasses.replace(config.data, batch_size=options.batch_size, max_len=options.max_len, buckets=1)
    config = dataclasses.replace(config, data=data)
    task = build.task(config)
    header = [f"encoder, {options.batch_size} x {options.max_len} words", "mean, ms a step", *options.poolers]
    header += [f"{options.seeds} seeds at once"] * bool(options.seeds)
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for encoder in encoders:
        programs = list(map(partial(program, encoder, task=task, config=config), dict.fromkeys([FREE, *poolers])))
        times = _times(programs, options.rounds)
        line = [encoder, f"{np.median(times[FREE]):.1f}", *(f"{share(times, pooler):.0%}" for pooler in poolers)]
        if options.seeds:
            times = _times(in_turn_and_at_once(encoder, poolers[0], task, config, options.seeds), options.rounds)
            line.append(f"{np.median(times['at once'] / times['in turn']):.2f}")
        print(f"| {' | '.join(line)} |", flush=True)


def _times(programs: list[Program], rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds of each program by its name, in interleaved rounds."""
    measured = timing.measure(programs, timing.host_clock, rounds, 0)
    return {program.row: np.asarray(times) for program, times in zip(programs, measured, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
