"""Train a text classifier and test it once: `python -m experiments.train --help`.

The only training loop. The batch and the noise of a step are functions of (seed, step), and `State` is all that a
step changes. The order of one turn is fixed: validate the state if it is due, step, save if it is due. Validation
chooses the parameters that are tested; the test split is read once, at the end.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments.base import devices
from experiments.base.command_line import command
from experiments.base.contracts import Batch, Task
from experiments.base.errors import DataError, NonFiniteError, printable
from experiments.base.json_files import read_object
from experiments.run import build
from experiments.run.clock import Clock
from experiments.run.config import CONFIG, Config, parse_args, to_json
from experiments.run.evaluate import evaluate
from experiments.run.journal import Journal
from experiments.run.progress import Progress
from experiments.run.saver import Saver
from experiments.run.signals import Stop
from experiments.run.step import Programs, State, StepReport, culprit, prepare
from experiments.run.trace import Trace
from experiments.run.trained import PARAMETERS, VOCABULARY, save_parameters
from experiments.storage.run_folder import ENVIRONMENT, SUMMARY, RunFolder, environment, peak_memory, plot


class Session(NamedTuple):
    """What accompanies the loop: records, checkpoints, a profile, the clock."""

    journal: Journal
    saver: Saver
    trace: Trace
    clock: Clock


def fit(config: Config, task: Task, state: State, programs: Programs, session: Session) -> None:
    """Train from a state; the journal holds the result."""
    journal, saver, trace, clock = session
    steps = config.epochs * task.steps_per_epoch
    validations = config.epochs * config.evaluations
    due = {round(steps * turn / validations) for turn in range(validations + 1)}
    start = int(state.step)
    with clock.measure("input"):
        batch = task.train_batch(config.seed, start)
    for step in range(start, steps + 1):
        if step in due:
            with clock.measure("validation"):
                scores = evaluate(programs.evaluate, state.tested, task, "validation")
                p = getattr(programs.module(state.tested).pooler, "p", None)
                journal.validation(step, scores, state.tested, p)
            if config.patience and journal.stale >= config.patience:
                break
        if step < steps:
            with trace.step(step), clock.measure("training"):
                state, report = programs.train(state, batch)
                # The device works on the step while the batch of the next one is made.
                batch = prepared(task, config.seed, min(step + 1, steps - 1), report, clock)
                report = jax.device_get(report)
            note(config, task, step, state, report, session)
            saver.after(step + 1, state, journal)


def prepared(task: Task, seed: int, step: int, report: StepReport, clock: Clock) -> Batch:
    """Return a batch; the time counts as waiting for input if the device has finished its step meanwhile."""
    began = time.perf_counter()
    batch = task.train_batch(seed, step)
    if report.loss.is_ready():  # type: ignore[attr-defined]
        clock.move("training", "input", time.perf_counter() - began)
    return batch


def note(config: Config, task: Task, step: int, state: State, report: StepReport, session: Session) -> None:
    """Note a step in the journal; after too many in a row that were not accepted, save and raise NonFiniteError."""
    journal, loss, tokens = session.journal, float(report.loss), int(report.tokens)
    if report.accepted:
        journal.step(loss, tokens)
        return
    limit = config.optim.bad_steps
    rows = task.train_rows(config.seed, step)
    sentence = journal.skip(step, tokens, culprit(report, state.parameters), loss, rows, limit)
    if journal.skipped_in_row >= limit:
        session.saver.save(step + 1, state, journal)
        raise NonFiniteError(f"{sentence}, {limit} steps in a row: try a smaller --optim.learning-rate.")


def summary(config: Config, task: Task, programs: Programs, session: Session) -> dict[str, Any]:
    """Test the chosen parameters and return the facts of the run."""
    journal, clock = session.journal, session.clock
    with clock.measure("test"):
        test = evaluate(programs.evaluate, journal.best_parameters, task, "test")
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
        "skipped_steps": len(journal.skipped),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(journal.best_parameters)),
        "tokens_per_second": journal.tokens / stepping,
        "step_seconds": stepping / journal.steps,
        "input_share": clock.seconds["input"] / stepping,
        "peak_memory_bytes": peak_memory(),
        "compilations": {"train": programs.train.compilations, "evaluate": programs.evaluate.compilations},
        "vectors_found": programs.module(journal.best_parameters).words.found,
        "data": task.describe(),
        "versions": environment(),
    }


def in_words(facts: dict[str, Any]) -> str:
    """Return the test result as a sentence."""
    test, p = facts["test"], facts["p"]
    exponent = "" if p is None else f" with p = {np.mean(p):.3f}" + " on average" * (np.size(p) > 1)
    return f"test accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f}{exponent}"


def run_folder(config: Config) -> RunFolder:
    """Return the folder of a run."""
    now = time.localtime(devices.largest(int(time.time())))  # processes may differ in the second
    name = f"{config.task}-{config.encoder}-{config.pooler}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S', now)}"
    return RunFolder(config.out or Path("runs") / name, resume=config.resume is not None)


def result_of(folder: Path) -> dict[str, Any]:
    """Return the summary of a finished run."""
    facts = read_object(folder / SUMMARY) | {"folder": folder}
    try:
        in_words(facts), float(facts["seconds"]["total"]), facts["parameters"]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{folder / SUMMARY} is not the summary of a run: {error!r}.") from None
    return facts


def run(config: Config, task: Task | None = None) -> dict[str, Any]:
    """Train, test and write the run folder; return the summary.

    A task that is already built is not read again; a finished run is only read.
    """
    folder = run_folder(config)
    if config.resume and (folder.path / SUMMARY).exists():
        return result_of(folder.path)
    with devices.mesh(config.devices, config.data.batch_size):
        return train_in(folder, config, task)


def train_in(folder: RunFolder, config: Config, task: Task | None) -> dict[str, Any]:
    """Train and test on the devices of the context; write the run folder and return the summary."""
    clock = Clock()
    with clock.measure("start"):
        task = build.task(config) if task is None else task
        state, programs = prepare(config, task, clock)
    # Only now: a mistake in the options or in the data leaves no folder behind.
    with folder, Stop() as stop:
        with clock.measure("other"):
            if not config.resume:
                folder.write(CONFIG, to_json(dataclasses.replace(config, out=folder.path)))
            progress = Progress(config.epochs * task.steps_per_epoch)
            session = Session(
                Journal(task, folder, progress, config.tensorboard),
                Saver(config, task, folder.path, clock, stop, progress),
                Trace(folder.path / "profile" if config.profile and devices.is_first() else None),
                clock,
            )
            facts = train_and_test(config, task, state, programs, session, folder)
        facts["seconds"] = {**clock.seconds, "total": sum(clock.seconds.values())}
        folder.write_json(SUMMARY, facts)
        session.saver.discard()
    return facts | {"folder": folder.path}


def train_and_test(
    config: Config, task: Task, state: State, programs: Programs, session: Session, folder: RunFolder
) -> dict[str, Any]:
    """Fill a run folder but for its summary, which is returned."""
    journal = session.journal
    try:
        if config.resume:
            state = session.saver.restore(state, journal)
        folder.write_json(ENVIRONMENT, environment())
        folder.write_json(VOCABULARY, {"labels": task.labels, "words": task.vocabulary.words})
        fit(config, task, state, programs, session)
    finally:
        session.trace.close()
        journal.close()
    facts = summary(config, task, programs, session)
    parameters = devices.on_host(nnx.state(programs.module(journal.best_parameters)))
    if devices.is_first():
        save_parameters(folder.path / PARAMETERS, parameters)
        plot(folder.path / "training.png", journal.records, in_words(facts))
    return facts


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        config = parse_args(arguments)
        with devices.joined(config.devices):
            facts = run(config)
            seconds = facts["seconds"]["total"]
            if devices.is_first():
                folder = printable(facts["folder"])
                print(f"{seconds:.0f} seconds, {facts['parameters']} parameters, run folder {folder}")
                print(in_words(facts))

    return command("train", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
