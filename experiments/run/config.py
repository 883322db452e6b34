"""What a run is: one frozen value, from the command line or from JSON, that alone decides the result."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

from experiments.base.command_line import parse
from experiments.base.devices import DeviceOptions
from experiments.base.errors import UsageError, unknown
from experiments.base.json_files import NO_JSON
from experiments.base.options import Interval, as_arguments, changes, flag, from_dict, to_dict, validate
from experiments.data import vectors
from experiments.encoders import ENCODERS
from experiments.layers.head import HeadOptions
from experiments.layers.words import RANDOM
from experiments.poolers import POOLERS
from experiments.tasks import TASKS

CONFIG = "config.json"

Data = TypeVar("Data")
Encode = TypeVar("Encode")
Pool = TypeVar("Pool")


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW with warm-up, then a linear descent to zero."""

    learning_rate: Annotated[float, Interval("(0, 1]")] = 3e-3
    """Largest step size."""
    p_multiplier: Annotated[float, Interval("[0, 1000]")] = 10.0
    """The exponent learns this many times faster than the other parameters; it is never decayed. 0 freezes it."""
    weight_decay: Annotated[float, Interval("[0, 10]")] = 0.1
    """Decoupled decay of matrices, times the step size."""
    warmup: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of all steps before the step size is at its largest."""
    clip: Annotated[float, Interval("(0, 1e9]")] = 1.0
    """Largest norm of the whole gradient."""
    average: Annotated[float, Interval("[0, 1)")] = 0.0
    """Decay a step of a moving average of the parameters, which is then what is validated and tested; 0 has none."""
    accumulate: Annotated[int, Interval("[1, 100000]")] = 1
    """Batches whose gradients are averaged for one update of the parameters; a step is still one batch."""
    bad_steps: Annotated[int, Interval("[1, 1000000]")] = 10
    """A step whose loss, gradient or result is not finite changes nothing; so many in a row end the run."""


@dataclasses.dataclass(frozen=True)
class SaveOptions:
    """Checkpoints, from which `--resume` goes on."""

    minutes: Annotated[float, Interval("[0, 100000]")] = 5.0
    """Time between checkpoints: what a crash can cost; 0 saves every step."""
    keep: Annotated[int, Interval("[1, 1000]")] = 2
    """Checkpoints kept, the newest ones; all are deleted when the run is finished."""


@dataclasses.dataclass(frozen=True)
class Config(Generic[Data, Encode, Pool]):
    """Train a text classifier: encoder -> pooler -> head.

    The groups data, encode and pool belong to the chosen task, encoder and pooler: `--pooler attention --help` shows
    the options of that pooler.
    """

    data: Data
    encode: Encode
    pool: Pool
    head: HeadOptions = dataclasses.field(default_factory=HeadOptions)
    optim: OptimOptions = dataclasses.field(default_factory=OptimOptions)
    save: SaveOptions = dataclasses.field(default_factory=SaveOptions)
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    task: str = "wordnet"
    """What to learn; one of the names in experiments/tasks."""
    encoder: str = "bigru"
    """What turns words into states; one of the names in experiments/encoders."""
    pooler: str = "learned_norm"
    """What turns states into one vector; one of the names in experiments/poolers."""
    seed: Annotated[int, Interval("[0, 4294967295]")] = 0
    """Decides initial values, dropout and the order of the data."""
    epochs: Annotated[int, Interval("[1, 10000]")] = 4
    """Passes over the training split."""
    evaluations: Annotated[int, Interval("[1, 1000]")] = 2
    """Validations an epoch; the parameters of the best one are tested and saved."""
    patience: Annotated[int, Interval("[0, 100000]")] = 0
    """Stop after this many validations in a row without a new best one; 0 never stops early."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which the encoder computes; parameters, pooling, head and optimiser are float32."""
    out: Path | None = None
    """Run folder, new or empty; runs/<task>-<encoder>-<pooler>-seed<seed>-<time> when not given."""
    resume: Path | None = None
    """Go on with the run of this folder, bit for bit; the folder says everything but --devices, so give no others."""
    profile: bool = False
    """Trace ten training steps into the folder `profile` of the run, for TensorBoard or xprof."""
    tensorboard: bool = False
    """Write the records of `metrics.jsonl` for TensorBoard too, into the folder `tensorboard` of the run."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Go on with a run: its folder says all, but the devices may be others."""

    resume: Path
    """Run folder."""
    devices: DeviceOptions = dataclasses.field(default_factory=DeviceOptions)
    debug: bool = False
    """Show the traceback of an error."""


def default_config(task: str = "wordnet", encoder: str = "bigru", pooler: str = "learned_norm") -> Config:
    """Return the configuration of a choice with every option at its default.

    The options of a part may name defaults of options that belong to others, as a class variable in the form of
    `config.json`: `suggests = {"epochs": 8, "head": {"dropout": 0.5}}`. What an encoder suggests wins over what a task
    suggests, and what a pooler suggests over both. Only here are suggestions read, so a value that is given wins.
    """
    for kind, name, table in (("task", task, TASKS), ("encoder", encoder, ENCODERS), ("pooler", pooler, POOLERS)):
        if not isinstance(name, str) or name not in table:
            raise unknown(kind, str(name), table)
    data, encode, pool = TASKS[task].Options(), ENCODERS[encoder].Options(), POOLERS[pooler].Options()
    if encode.reads_sentences and hasattr(data, "sentences"):
        data = dataclasses.replace(data, sentences=True)
    config = Config(task=task, encoder=encoder, pooler=pooler, data=data, encode=encode, pool=pool)
    for part in (data, encode, pool):
        config = from_dict(config, getattr(part, "suggests", {}))
    return config


class _Names(argparse.ArgumentParser):
    """Reads only the three names, because they decide which options exist."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def chosen_names(arguments: list[str], *names: str) -> dict[str, str]:
    """Return those of the names that a command line gives."""
    parser = _Names(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in names:
        parser.add_argument(f"--{name}")
    return vars(parser.parse_known_args(arguments)[0])


def parse_args(arguments: list[str]) -> Config:
    """Return the configuration of a command line."""
    if folder := chosen_names(arguments, "resume"):
        return _resumed(Path(folder["resume"]), arguments)
    default = default_config(**chosen_names(arguments, "task", "encoder", "pooler"))
    config_type: Any = Config[type(default.data), type(default.encode), type(default.pool)]  # type: ignore[misc]
    config = parse(config_type, arguments, program="python -m experiments.train", default=default)
    return completed(config)


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
    config = from_json((folder / CONFIG).read_bytes())
    as_before = DeviceOptions(count=config.devices.count, parameters=config.devices.parameters)
    given = parse(Resumed, arguments, program="python -m experiments.train", default=Resumed(folder, as_before))
    validate(given)
    return dataclasses.replace(config, out=folder, resume=folder, devices=given.devices, debug=given.debug)


def config_changes(config: Config) -> dict[str, Any]:
    """Return the options that differ from the default of the chosen task, encoder and pooler."""
    return changes(config, default_config(config.task, config.encoder, config.pooler))


def command_line(config: Config) -> list[str]:
    """Return the arguments of `experiments.train` that make this configuration; where its data lie is left out."""
    names = {name: getattr(config, name) for name in ("task", "encoder", "pooler", "seed")}
    return as_arguments(names | config_changes(config))


def to_json(config: Config) -> str:
    """Return the configuration as JSON."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str | bytes) -> Config:
    """Return the configuration that `to_json` wrote, refusing unknown keys, wrong types and values out of range."""
    try:
        values = json.loads(text)
    except NO_JSON as error:
        raise UsageError(f"the configuration is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"the configuration must be a JSON object, got {type(values).__name__}.")
    names = {key: values[key] for key in ("task", "encoder", "pooler") if key in values}
    config = from_dict(default_config(**names), values)
    validate(config)
    return config
