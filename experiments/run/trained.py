"""A trained model back in memory, from the folder of its run or of an export alone."""

import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from experiments.base.contracts import Batch, Codec, Objective, Outputs, Task
from experiments.base.errors import DataError, UsageError
from experiments.objectives import OBJECTIVES
from experiments.run import build, result
from experiments.run.config import Config
from experiments.run.guide import Base, GuidedCodec, GuidedTask
from experiments.run.program import compiled, form_of, parameters_of
from experiments.storage.finished import Finished, finished_run, open_sealed, warn_unverified
from experiments.storage.parameters import PARAMETERS, most_bytes, parse_parameters
from experiments.storage.run_folder import VOCABULARY
from experiments.storage.safetensors import SAFETENSORS
from experiments.storage.safetensors import parse as parse_safetensors
from experiments.tasks import TASKS

PROGRAMS, LOADER = "programs.json", "loader.py"
"""The files that an export has and a run has not."""


class Trained(NamedTuple):
    """A trained objective with all that its use needs."""

    config: Config
    objective: Objective
    codec: Codec

    def outputs(self, records: Iterable[Any]) -> Iterator[tuple[Batch, Outputs]]:
        """Yield the batches of records, as texts, and what the objective computes of each, without noise."""
        graph, state = nnx.split(self.objective)
        for batch in self.codec.encode(records):
            yield batch, _outputs(graph, state, batch)

    def answers(self, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield what an export of the model computes too, some records at a time and as host arrays.

        `predictions` is a pytree of arrays [B ...], `pooled` [B E] is there where the objective pools.
        """
        parameters = parameters_of(self.objective)
        for batch in self.codec.encode(records):
            run = compiled(form_of(self.objective, batch))
            found = jax.device_get(run(parameters, jax.tree.leaves(batch)))
            yield jax.tree.map(operator.itemgetter(slice(int(batch.weights.sum()))), found)

    def pooled(self, records: Iterable[Any]) -> Float[np.ndarray, "N E"]:
        """Return the pooled vectors of records, or raise UsageError where the objective pools nothing."""
        if not self.objective.pools:
            raise UsageError(f"the objective {self.config.objective} pools nothing: there are no vectors.")
        return np.concatenate([found["pooled"] for found in self.answers(records)])

    def predict(self, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield one readable prediction a record, in their order: `{"label": "plant", "probability": 0.93}`."""
        if isinstance(records, str | bytes):
            raise TypeError("predict takes texts, not one text: give a list, as predict([text]).")
        given, texts = itertools.tee(records)
        return (record for found in self.answers(given) for record in self.readable(found, texts))

    def readable(self, found: dict[str, Any], texts: Iterator[Any]) -> list[dict[str, Any]]:
        """Return the predictions of `answers`, one readable record a text, which is the next one of `texts`."""
        records = self.objective.records(found["predictions"], self.codec)
        return [self.codec.named(record, text) for record, text in zip(records, texts, strict=False)]


@partial(jax.jit, static_argnums=0)
def _outputs(graph: Any, state: nnx.State, batch: Batch) -> Outputs:
    return nnx.merge(graph, state)(batch)


def load(folder: Path | str) -> Trained:
    """Return the model of a finished run or of an export; see `load_run` and `load_export`."""
    return load_export(folder) if _is_export(Path(folder)) else load_run(folder)


def load_run(folder: Path | str) -> Trained:
    """Return the model of a finished run, all of whose files are as they were written.

    Raises:
        DataError: the run is not finished, or a file of it is damaged or of another run; the message names the file.
    """
    folder = Path(folder)
    if _is_export(folder):
        raise DataError(f"{folder} is an export: give the folder of a finished run.")
    run = finished_run(folder)
    run.verify()
    warn_unverified([run])
    return _trained(run, PARAMETERS, parse_parameters)


def load_export(folder: Path | str) -> Trained:
    """Return the model of an export, all of whose files are as they were written. Nothing in it is executed.

    Raises:
        DataError: a file of it is damaged or of another export; the message names the file.
    """
    exported = open_sealed(Path(folder))
    exported.verify()
    return _trained(exported, SAFETENSORS, parse_safetensors)


def _is_export(folder: Path) -> bool:
    return os.path.lexists(folder / PROGRAMS)


def _trained(source: Finished, parameters: str, parse: Callable[[bytes, str, nnx.State], nnx.State]) -> Trained:
    """Return the model that a folder holds, with the name and the parser of its file of parameters."""
    config = result.configuration(source)
    stored = source.read_object(VOCABULARY)
    try:
        codec = TASKS[config.task].codec_of(config.data, stored)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        where = source.folder / VOCABULARY
        raise DataError(f"{where} is not of the task {config.task}: {type(error).__name__} {error}.") from None
    objective, _ = build.objective(config, codec.sizes)
    state = nnx.state(objective)
    content = source.content(parameters, most_bytes(state))
    nnx.update(objective, parse(content, f"{source.folder / parameters}", state))
    if objective.guided == "outputs":
        codec = GuidedCodec(codec, base_of(config, codec))
    return Trained(config, objective, codec)


def guided(config: Config, task: Task) -> Any:
    """Return the task, with the answers of another run in its batches where the objective learns from one."""
    return GuidedTask(task, base_of(config, task.codec)) if OBJECTIVES[config.objective].guided else task


def base_of(config: Config, codec: Any) -> Base:
    """Return the model that guides the objective of a configuration."""
    if config.head.base is None:
        raise UsageError(f"the objective {config.objective} learns from a finished run: --head.base RUN")
    base = load_run(config.head.base)
    return Base(base.objective, base.codec, codec)
