"""The only training loop, and all that a run is made of, from its configuration to its summary.

The batch and the noise of a step are functions of (seed, step), and `State` is all that a step changes. Validation
chooses the parameters that are tested; the test split is read once, at the end.

The loop never waits for the step that it has just started: the report of a step is read after the next one has been
dispatched, so that the device always has work.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.base import devices
from experiments.base.contracts import Objective, Task
from experiments.base.errors import NonFiniteError
from experiments.objectives import OBJECTIVES
from experiments.run import build, held_out, pretrained
from experiments.run.clock import Clock
from experiments.run.config import CONFIG, NO_POOLER, Config, to_json
from experiments.run.diagnostics import evaluate
from experiments.run.environment import environment, peak_memory
from experiments.run.journal import Journal, Rules
from experiments.run.optimiser import optimizer
from experiments.run.plot import plot
from experiments.run.progress import Progress
from experiments.run.result import result_of
from experiments.run.saver import Saver
from experiments.run.signals import Stop
from experiments.run.step import Programs, Recipe, State, StepBatch, StepReport, culprit, leaf_names
from experiments.run.trace import Trace
from experiments.run.trained import guided
from experiments.storage.finished import finished
from experiments.storage.parameters import PARAMETERS, save_parameters
from experiments.storage.run_folder import ENVIRONMENT, PROFILE, VOCABULARY, RunFolder

IN_FLIGHT = 3
"""Steps between a request of one process and the report in which all processes see it."""


class Run(NamedTuple):
    """One training run: what is trained, on what, and what accompanies the loop."""

    config: Config
    task: Task
    programs: Programs
    objective: type[Objective]
    term_weights: Mapping[str, float]
    journal: Journal
    saver: Saver
    trace: Trace
    clock: Clock
    parameter_names: list[str]
    """Dotted names, in the order of the gradients that a step reports."""

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.config.epochs * self.task.steps_per_epoch


class Pending(NamedTuple):
    """A step that was dispatched and whose report was not read yet."""

    step: int
    tokens: int
    report: StepReport


def fit(run: Run, state: State) -> None:
    """Train from a state; the journal holds the result.

    The order of one turn: validate the state if that is due, dispatch the step, prepare the batch of the next one, read
    the report of the step before, save if that is requested.
    """
    config, clock, saver, journal = run.config, run.clock, run.saver, run.journal
    validations = max(config.epochs * config.evaluations, 1)
    due = {round(run.steps * turn / validations) for turn in range(validations + 1)}
    start, pending, served = int(jax.device_get(state.step)), None, -IN_FLIGHT
    with clock.measure("input"):
        batch, tokens = next_batch(run, start, saver.request())
    for step in range(start, run.steps + 1):
        if step in due:
            settle(run, pending)
            check_skipped(run, step, state)
            if step == run.steps and pending is not None:
                saver.serve(devices.agree(saver.request()), step, state, journal)
            pending = None
            if validate(run, step, state):
                break
        if step == run.steps:
            break
        with run.trace.step(step), clock.measure("training"):
            state, report = run.programs.train(state, batch)
            dispatched = Pending(step, tokens, report)
            began = time.perf_counter()
            batch, tokens = next_batch(run, min(step + 1, run.steps - 1), saver.request())
            if report.loss.is_ready():
                clock.move("training", "input", time.perf_counter() - began)  # the device has waited for the batch
            request = settle(run, pending)
        pending = dispatched
        if too_many_skipped(run):  # unless the step that is already dispatched is accepted
            settle(run, pending)
            pending = None
            check_skipped(run, step + 1, state)
        if devices.is_alone():
            request = saver.request()
        elif step - served < IN_FLIGHT:
            request = 0  # it was made before what it asks for was done
        if request:
            settle(run, pending)
            pending, served = None, step
            saver.serve(request, step + 1, state, journal)
    check_trained(run, state)


def next_batch(run: Run, step: int, request: int) -> tuple[StepBatch, int]:
    """Return the batch of a step with what accompanies its rows, on the devices, and its number of real tokens."""
    batch = run.task.train_batch(run.config.seed, step)
    rows, tokens = len(batch.weights), sum(int(leaf.sum()) for leaf in jax.tree.leaves(batch) if leaf.dtype == bool)
    kept = held_out.rows_of(run.task, run.config, step, rows)
    return devices.put_batch(StepBatch(batch, np.full(rows, request, np.int32), kept)), tokens


def settle(run: Run, pending: Pending | None) -> int:
    """Read the report of a step and note it in the journal; return the request that the processes have agreed on."""
    if pending is None:
        return 0
    journal, report = run.journal, jax.device_get(pending.report)
    if report.accepted:
        journal.step(float(report.loss), pending.tokens, report.scalars)
    else:
        rows = run.task.train_rows(run.config.seed, pending.step)
        journal.skip(pending.step, pending.tokens, culprit(report, run.parameter_names), float(report.loss), rows)
    return int(report.request)


def too_many_skipped(run: Run) -> bool:
    """Tell whether so many steps in a row were not accepted that the run must end."""
    return run.journal.skipped_in_row >= run.config.optim.bad_steps


def check_skipped(run: Run, step: int, state: State) -> None:
    """Save the state and raise NonFiniteError if too many steps in a row were not accepted; all must be settled."""
    if too_many_skipped(run):
        run.saver.save(step, state, run.journal)
        count, sentence = run.journal.skipped_in_row, run.journal.last_skip()
        raise NonFiniteError(f"{sentence}, {count} steps in a row: try a smaller --optim.learning-rate.")


def check_trained(run: Run, state: State) -> None:
    """Save the state and raise NonFiniteError if not one step was accepted: there is nothing to test."""
    journal = run.journal
    if journal.steps and len(journal.skipped) == journal.steps:
        run.saver.save(journal.steps, state, journal)
        raise NonFiniteError(f"{journal.last_skip()}, and none of the {journal.steps} steps was accepted.")


def validate(run: Run, step: int, state: State) -> bool:
    """Validate the state, note it in the journal, and tell whether to stop early."""
    config, journal = run.config, run.journal
    with run.clock.measure("validation"):
        scores, p = evaluate(run.programs.evaluate, state.tested, run.task.batches("validation"), run.term_weights)
        journal.validation(step, scores, state.tested, p)
    return bool(config.patience) and journal.stale >= config.patience


class Prepared(NamedTuple):
    """What the steps of a run start from."""

    recipe: Recipe
    noise: jax.Array
    frozen: nnx.State
    state: State
    term_weights: Mapping[str, float]
    read: dict[str, Any]
    """What the numbers were read from: facts for the summary."""


def prepare(config: Config, task: Task) -> Prepared:
    """Return the objective of a run, apart, with its optimiser at step 0."""
    objective, embeddings = build.objective(config, task.codec.sizes)
    read = pretrained.read_numbers(objective, embeddings, config, task)
    graph, parameters, statistics, frozen = nnx.split(objective, nnx.Param, nnx.BatchStat, ...)  # type: ignore[misc]
    held_out.check(task, config, parameters)
    optimiser = optimizer(config.optim, parameters, config.epochs * task.steps_per_epoch)
    average = jax.tree.map(jnp.copy, parameters) if config.optim.average else None
    state = State(parameters, statistics, optimiser.init(parameters), average, jnp.zeros((), jnp.int32))
    sharded = config.devices.sharded
    return Prepared(
        Recipe(graph, optimiser, config.optim, sharded),
        devices.put(build.stream(config.seed, "dropout")),
        devices.put(frozen, sharded),
        devices.put(state, sharded),
        dict(objective.term_weights),
        read,
    )


def train(config: Config, task: Task | None = None) -> dict[str, Any]:
    """Train, test and write the run folder; return the summary.

    A task that is already built is not read again; a finished run is only read.
    """
    folder = run_folder(config)
    if config.resume and finished(folder.path):
        return result_of(folder.path)
    objective = OBJECTIVES[config.objective]
    with devices.mesh(config.devices, config.data.batch_size), Progress(objective.shown) as progress:
        clock = Clock(progress.phase)
        with clock.measure("start"):
            task = guided(config, build.task(config) if task is None else task)
            prepared = prepare(config, task)
            programs, state = Programs.of(prepared.recipe, prepared.noise, prepared.frozen, clock), prepared.state
        # Only now: a mistake in the options or in the data leaves no folder behind.
        with folder, Stop() as stop, clock.measure("other"):
            progress.begin(config.epochs * task.steps_per_epoch, config.epochs * config.evaluations + 1)
            progress.say("" if config.resume else build.few_texts(task))
            journal = Journal(Rules(task.steps_per_epoch, objective.chosen_by), folder, progress, config.tensorboard)
            saver = Saver(config, task, prepared.read, folder, clock, stop, progress)
            trace = Trace(folder.path / PROFILE if config.profile and devices.is_first() else None)
            run = Run(config, task, programs, objective, prepared.term_weights, journal, saver, trace, clock,
                      leaf_names(state.parameters))  # fmt: skip
            try:
                if config.resume:
                    state = saver.restore(state, journal)
                else:
                    folder.write(CONFIG, to_json(dataclasses.replace(config, out=folder.path)))
                folder.write_json(ENVIRONMENT, environment())
                folder.write_json(VOCABULARY, task.codec.to_json())
                with jax.transfer_guard("disallow"):
                    fit(run, state)
            finally:
                trace.close()
                journal.close()
            facts = finish(run, folder, prepared.read)
            clock.turn()
            facts["seconds"] = {**clock.seconds, "total": sum(clock.seconds.values())}
            folder.finish(facts)
            saver.discard()
    return facts | {"folder": folder.path}


def run_folder(config: Config) -> RunFolder:
    """Return the folder of a run."""
    now = time.localtime(devices.agree(int(time.time())))  # processes may differ in the second
    parts = [config.task, config.encoder, config.pooler if config.pooler != NO_POOLER else config.objective]
    name = "-".join([*parts, f"seed{config.seed}", time.strftime("%Y%m%d-%H%M%S", now)])
    return RunFolder(config.out or Path("runs") / name, resume=config.resume is not None)


def finish(run: Run, folder: RunFolder, read: dict[str, Any]) -> dict[str, Any]:
    """Test the chosen parameters, write them and the plot, and return the facts of the run but its seconds."""
    journal = run.journal
    with run.clock.measure("test"):
        test, _ = evaluate(run.programs.evaluate, journal.best_parameters, run.task.batches("test"), run.term_weights)
    for name, value in test.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"the {name} of the test is {value}: try a smaller --optim.learning-rate.")
    data = run.task.describe() | held_out.facts(run.task, run.config)
    facts = {**summary(run, test), **read, "data": data, "versions": environment()}
    parameters = devices.gather(nnx.state(run.programs.objective(journal.best_parameters)))
    if devices.is_first():
        folder.check_place()
        save_parameters(folder.path / PARAMETERS, parameters)
        plot(folder.path / "training.png", journal.records, facts, run.objective)
    return facts


def summary(run: Run, test: dict[str, float]) -> dict[str, Any]:
    """Return what a run was, its test result and its costs."""
    config, journal, seconds = run.config, run.journal, run.clock.seconds
    stepping = seconds["training"] + seconds["input"]
    return {
        "task": config.task,
        "encoder": config.encoder,
        "pooler": config.pooler,
        "objective": config.objective,
        "seed": config.seed,
        "test": test,
        "p": journal.best_record.get("p"),
        "validation": journal.best_record,
        "steps": journal.steps,
        "skipped_steps": len(journal.skipped),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.filter_state(journal.best_parameters, nnx.Param))),
        "tokens_per_second": journal.tokens / stepping,
        "step_seconds": stepping / max(journal.steps, 1),
        "input_share": seconds["input"] / stepping,
        "peak_memory_bytes": peak_memory(),
        "compilations": {"train": run.programs.train.compilations, "evaluate": run.programs.evaluate.compilations},
    }
