"""Train a text classifier and test it once: `python -m experiments.train --help`.

The only training loop. The batch and the noise of a step are functions of (seed, step), and `State` is all that a
step changes. The order of one turn is fixed: validate the state if it is due, take the batch of the step, step.
Validation chooses the parameters that are tested; the test split is read once, at the end.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import build
from experiments.checkpoint import CONFIG, PARAMETERS, VOCABULARY, save_parameters
from experiments.cli import command
from experiments.clock import Clock
from experiments.config import Config, parse_args, to_json
from experiments.contracts import Batch, Task
from experiments.evaluate import evaluate
from experiments.journal import Journal
from experiments.progress import Progress
from experiments.steps import Programs, State, StepReport, check_finite, prepare
from experiments.writer import RunFolder, environment, peak_memory, plot


def fit(config: Config, task: Task, state: State, programs: Programs, journal: Journal) -> None:
    """Train from a state; the journal holds the result."""
    clock = programs.clock
    steps = config.epochs * task.steps_per_epoch
    validations = config.epochs * config.evaluations
    due = {round(steps * turn / validations) for turn in range(validations + 1)}
    with clock.measure("input"):
        batch = task.train_batch(config.seed, 0)
    for step in range(steps + 1):
        if step in due:
            with clock.measure("validation"):
                scores = evaluate(programs.evaluate, state.tested, task, "validation")
                p = getattr(programs.module(state.tested).pooler, "p", None)
                journal.validation(step, scores, state.tested, p)
            if config.patience and journal.stale >= config.patience:
                break
        if step < steps:
            with clock.measure("training"):
                state, report = programs.train(state, batch)
                # The device works on the step while the batch of the next one is made.
                batch = prepared(task, config.seed, step + 1, report, clock)
                report = jax.device_get(report)
            check_finite(report, state.parameters, step)
            journal.step(float(report.loss), int(report.tokens))


def prepared(task: Task, seed: int, step: int, report: StepReport, clock: Clock) -> Batch:
    """Return a batch; the time counts as waiting for input if the device has finished its step meanwhile."""
    began = time.perf_counter()
    batch = task.train_batch(seed, step)
    if report.loss.is_ready():
        clock.move("training", "input", time.perf_counter() - began)
    return batch


def summary(config: Config, task: Task, journal: Journal, programs: Programs) -> dict[str, Any]:
    """Test the chosen parameters and return the facts of the run."""
    parameters, clock = journal.best_parameters, programs.clock
    with clock.measure("test"):
        test = evaluate(programs.evaluate, parameters, task, "test")
    stepping = clock.seconds["training"] + clock.seconds["input"]
    return {
        "task": config.task,
        "encoder": config.encoder,
        "pooler": config.pooler,
        "seed": config.seed,
        "test": test,
        "p": journal.best_record.get("p"),
        "validation": journal.best_record,
        "steps": journal.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        "tokens_per_second": journal.tokens / stepping,
        "step_seconds": stepping / journal.steps,
        "input_share": clock.seconds["input"] / stepping,
        "peak_memory_bytes": peak_memory(),
        "compilations": {"train": programs.train.compilations, "evaluate": programs.evaluate.compilations},
        "seconds": dict(clock.seconds),
        "data": task.describe(),
    }


def in_words(facts: dict[str, Any]) -> str:
    """Return the test result as a sentence."""
    test, p = facts["test"], facts["p"]
    exponent = "" if p is None else f" with p = {np.mean(p):.3f}" + " on average" * (np.size(p) > 1)
    return f"test accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f}{exponent}"


def run_folder(config: Config) -> RunFolder:
    """Return the new folder of a run."""
    name = f"{config.task}-{config.encoder}-{config.pooler}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return RunFolder(config.out or Path("runs") / name)


def run(config: Config) -> dict[str, Any]:
    """Train, test and write the run folder; return the summary."""
    began = time.perf_counter()
    folder = run_folder(config)
    task = build.task(config)
    state, programs = prepare(config, task)
    versions = environment()
    # Only now: a mistake in the options or in the data leaves no folder behind.
    folder.write(CONFIG, to_json(dataclasses.replace(config, out=folder.path)))
    folder.write_json("environment.json", versions)
    folder.write_json(VOCABULARY, {"labels": task.labels, "words": task.vocabulary.words})
    progress = Progress(config.epochs * task.steps_per_epoch)
    journal = Journal(task, folder, progress, config.tensorboard)
    try:
        fit(config, task, state, programs, journal)
    finally:
        journal.close()
    facts = summary(config, task, journal, programs) | {"versions": versions}
    save_parameters(folder.path / PARAMETERS, journal.best_parameters)
    plot(folder.path / "training.png", journal.records, in_words(facts))
    facts["seconds"]["total"] = time.perf_counter() - began
    folder.write_json("summary.json", facts)
    return facts | {"folder": folder.path}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        facts = run(parse_args(arguments))
        seconds = facts["seconds"]["total"]
        print(f"{seconds:.0f} seconds, {facts['parameters']} parameters, run folder {facts['folder']}")
        print(in_words(facts))

    return command("train", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
