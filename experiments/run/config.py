"""What a run is: one frozen value, from the command line or from JSON, that alone decides the result."""

import argparse
import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

from experiments.base.command_line import parse
from experiments.base.devices import DeviceOptions
from experiments.base.errors import UsageError, unknown
from experiments.base.files import content
from experiments.base.json_files import object_of
from experiments.base.options import (
    NOT_DECISIVE,
    REPEAT,
    Interval,
    added,
    as_arguments,
    changes,
    deciding,
    flag,
    from_dict,
    to_dict,
    validate,
)
from experiments.data import vectors
from experiments.encoders import ENCODERS
from experiments.layers.words import RANDOM
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.run.hints import belonging
from experiments.run.optimiser import OptimOptions
from experiments.tasks import TASKS

CONFIG = "config.json"

Data = TypeVar("Data")
Encode = TypeVar("Encode")
Pool = TypeVar("Pool")
Head = TypeVar("Head")

NO_POOLER = "none"
"""The pooler of an objective that does not pool."""


@dataclasses.dataclass(frozen=True)
class NoPoolerOptions:
    """The objective does not pool."""


@dataclasses.dataclass(frozen=True)
class SaveOptions:
    """Checkpoints, from which `--resume` goes on."""

    minutes: Annotated[float, Interval("[0, 100000]"), NOT_DECISIVE] = 5.0
    """Minutes between checkpoints, which is what a crash can cost; 0 saves every step."""
    keep: Annotated[int, Interval("[1, 1000]"), NOT_DECISIVE] = 2
    """Checkpoints kept, the newest ones; all are deleted when the run is finished."""


@dataclasses.dataclass(frozen=True)
class Config(Generic[Data, Encode, Pool, Head]):
    """Train a text encoder on a task.

    The groups data, encode, pool and head belong to the chosen task, encoder, pooler and objective:
    `--pooler attention --help` shows the options of that pooler.
    """

    data: Data
    encode: Encode
    pool: Pool
    head: Head
    optim: OptimOptions = dataclasses.field(default_factory=OptimOptions)
    save: SaveOptions = dataclasses.field(default_factory=SaveOptions)
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    task: str = "wordnet"
    """The data set."""
    encoder: str = "bigru"
    """The encoder, which turns words into states."""
    pooler: str = "log_learned_norm"
    """The pooler, which turns the states of a text into one vector."""
    objective: Annotated[str, added("classify")] = "classify"
    """What is learned; the default is that of the task."""
    seed: Annotated[int, Interval("[0, 4294967295]"), REPEAT] = 0
    """Random seed of initial values, dropout and the order of the data."""
    epochs: Annotated[int, Interval("[0, 10000]")] = 4
    """Passes over the training split; 0 trains nothing, and the initial parameters are tested."""
    evaluations: Annotated[int, Interval("[1, 1000]")] = 2
    """Validations per epoch; the parameters of the best one are tested and saved."""
    patience: Annotated[int, Interval("[0, 100000]")] = 0
    """Early stopping: stop after this many validations without a new best one; 0 never stops early."""
    compute: Annotated[Literal["float32", "bfloat16"], added("float32")] = "float32"
    """Dtype in which the encoder computes; parameters, pooling, head and optimiser are float32."""
    out: Annotated[Path | None, NOT_DECISIVE] = None
    """Run folder, new or empty; runs/<task>-<encoder>-<pooler>-seed<seed>-<time> when not given."""
    resume: Annotated[Path | None, NOT_DECISIVE] = None
    """Go on with the run of this folder, bit for bit; the folder says everything but --devices, so give no others."""
    profile: Annotated[bool, NOT_DECISIVE] = False
    """Trace ten training steps into the folder `profile` of the run, for TensorBoard or xprof."""
    tensorboard: Annotated[bool, NOT_DECISIVE] = False
    """Write the records of `metrics.jsonl` for TensorBoard too, into the folder `tensorboard` of the run."""
    debug: Annotated[bool, NOT_DECISIVE] = False
    """Show the traceback of an error."""


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Go on with a run: its folder says all, but the devices may be others."""

    resume: Path
    """Run folder."""
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    debug: bool = False
    """Show the traceback of an error."""


NAMES = ("task", "encoder", "pooler", "objective")
"""The options that decide which other options exist."""


def default_config(
    task: str = "wordnet",
    encoder: str = "bigru",
    pooler: str | None = None,
    objective: str | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> Config:
    """Return the configuration of a choice with every option at its default.

    The objective is that of the task unless given, where the options of its data may decide; the pooler is
    that of `Config`, or none where the objective has none.

    The options of a part may name defaults of options that belong to others, as a class variable in the form of
    `config.json`: `suggests = {"epochs": 8, "head": {"dropout": 0.5}}`. What an encoder suggests wins over what a task
    suggests, and what a pooler suggests over both. Only here are suggestions read, so a value that is given wins.
    """
    task_type, encoder_type = _looked_up("task", task, TASKS), _looked_up("encoder", encoder, ENCODERS)
    objective = default_objective(task, data_options or {}) if objective is None else objective
    objective_type = _looked_up("objective", objective, OBJECTIVES)
    pooler = (Config.pooler if objective_type.pools else NO_POOLER) if pooler is None else pooler
    if not objective_type.pools and pooler != NO_POOLER:
        raise UsageError(f"the objective {objective} does not pool: leave out --pooler {pooler}.")
    pool = _looked_up("pooler", pooler, POOLERS).Options() if objective_type.pools else NoPoolerOptions()
    data, encode = task_type.Options(), encoder_type.Options()
    if encode.reads_sentences and hasattr(data, "sentences"):
        data = dataclasses.replace(data, sentences=True)
    config = Config(data, encode, pool, objective_type.Options(), task=task, encoder=encoder, pooler=pooler,
                    objective=objective)  # fmt: skip
    for part in (data, encode, pool):
        config = from_dict(config, existing(config, getattr(part, "suggests", {})))
    return config


def existing(options: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of options that exist: another objective or task may not have the one that is meant."""
    return {
        name: existing(getattr(options, name), value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if hasattr(options, name)
    }


def default_objective(task: str, data_options: Mapping[str, Any]) -> str:
    """Return the objective that is learned from a task where none is named."""
    kind = _looked_up("task", task, TASKS)
    default = kind.Options()
    return kind.objective_of(
        from_dict(default, {name: data_options[name] for name in deciding(default) & data_options.keys()}, "data.")
    )


def _looked_up(kind: str, name: Any, table: dict[str, Any]) -> Any:
    """Return the row of a table, or raise UsageError with the nearest name."""
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, str(name), table)
    return table[name]


class _Names(argparse.ArgumentParser):
    """Reads only the names of parts, because they decide which options exist."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def chosen_names(arguments: list[str], *names: str) -> dict[str, str]:
    """Return those of the names that a command line gives."""
    parser = _Names(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in names:
        parser.add_argument(f"--{name}")
    return vars(parser.parse_known_args(arguments)[0])


def deciding_data(arguments: list[str], task: str) -> dict[str, str]:
    """Return those options of a task on a command line that decide the objective."""
    names = deciding(_looked_up("task", task, TASKS).Options())
    found = chosen_names(arguments, *(f"data.{name}" for name in names))
    return {path.removeprefix("data."): value for path, value in found.items()}


def parse_args(arguments: list[str]) -> Config:
    """Return the configuration of a command line."""
    if folder := chosen_names(arguments, "resume"):
        return _resumed(Path(folder["resume"]), arguments)
    names = chosen_names(arguments, *NAMES)
    default = default_config(**names, data_options=deciding_data(arguments, names.get("task", Config.task)))
    groups = (type(group) for group in (default.data, default.encode, default.pool, default.head))
    generic: Any = Config
    config_type = generic[tuple(groups)]
    program = "python -m experiments.train"
    config = parse(config_type, arguments, program=program, default=default, about=_about(), elsewhere=belonging)
    return completed(config)


def _about() -> str:
    """Return what `--help` says first: the names in all tables."""
    tables: dict[str, Mapping[str, Any]] = {
        "tasks": TASKS,
        "encoders": ENCODERS,
        "poolers": POOLERS,
        "objectives": OBJECTIVES,
    }
    names = "\n\n".join(f"{kind}: {', '.join(table)}" for kind, table in tables.items())
    return f"{inspect.cleandoc(Config.__doc__ or '')}\n\n{names}"


def completed(config: Config) -> Config:
    """Return the configuration, checked, with the size of the word vectors that are read: it alone says all shapes."""
    validate(config)
    options = config.encode
    if options.vectors == RANDOM:
        return config
    name, found = options.size_option, vectors.size(options.vectors)
    given = getattr(options, name)
    if given not in (found, getattr(type(options)(), name)):
        advice = f"leave {flag(f'encode.{name}')} out"
        raise UsageError(f"{options.vectors} has vectors of {found} numbers, not {given}: {advice}.")
    config = dataclasses.replace(config, encode=dataclasses.replace(options, **{name: found}))
    validate(config)
    return config


def _resumed(folder: Path, arguments: list[str]) -> Config:
    """Return the configuration of a run folder; how processes meet is for the command line to say."""
    for word in arguments:
        if word.startswith("--") and not word.startswith(("--resume", "--devices.", "--debug", "--help")):
            raise UsageError(f"--resume takes every option but --devices from the folder: leave out {word}.")
    if not (folder / CONFIG).is_file():
        raise UsageError(f"--resume {folder} has no {CONFIG}: give the folder of a run.")
    config = from_json(content(folder / CONFIG))
    as_before = DeviceOptions(count=config.devices.count, parameters=config.devices.parameters)
    given = parse(Resumed, arguments, program="python -m experiments.train", default=Resumed(folder, as_before))
    validate(given)
    return dataclasses.replace(config, out=folder, resume=folder, devices=given.devices, debug=given.debug)


def config_changes(config: Config) -> dict[str, Any]:
    """Return the options that differ from the default of the chosen task, encoder and pooler."""
    return changes(config, default_config(*(getattr(config, name) for name in NAMES)))


def command_line(config: Config) -> list[str]:
    """Return the arguments of `experiments.train` that make this configuration; where its data lie is left out."""
    names = {name: getattr(config, name) for name in ("task", "encoder", "pooler", "objective", "seed")}
    if config.objective == TASKS[config.task].objective_of(config.data):
        del names["objective"]
    if config.pooler == NO_POOLER:
        del names["pooler"]
    return as_arguments(names | config_changes(config))


def to_json(config: Config) -> str:
    """Return the configuration as JSON."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str | bytes) -> Config:
    """Return the configuration that `to_json` wrote, refusing unknown keys, wrong types and values out of range."""
    values = object_of(text, "the configuration", UsageError)
    names = {key: values[key] for key in NAMES if key in values}
    config = from_dict(default_config(**names), values)
    validate(config)
    return config
