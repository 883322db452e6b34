"""A trained run back in memory, from its folder alone."""

import operator
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.base.contracts import Batch, Codec, Objective, Outputs
from experiments.base.errors import DataError
from experiments.run import build, result
from experiments.run.config import Config
from experiments.storage.finished import finished_run, warn_unverified
from experiments.storage.parameters import PARAMETERS, most_bytes, parse_parameters
from experiments.storage.run_folder import VOCABULARY
from experiments.tasks import TASKS


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

    def predict(self, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield one readable prediction a record, in their order: `{"label": "plant", "probability": 0.93}`."""
        if isinstance(records, str | bytes):
            raise TypeError("predict takes texts, not one text: give a list, as predict([text]).")
        return (record for batch, outputs in self.outputs(records) for record in self.readable(batch, outputs))

    def readable(self, batch: Batch, outputs: Outputs) -> list[dict[str, Any]]:
        """Return the predictions of a batch of `outputs`, one readable record a text."""
        predictions = jax.device_get(self.objective.predict(outputs))
        real = operator.itemgetter(slice(int(batch.weights.sum())))
        return self.objective.records(jax.tree.map(real, predictions), self.codec)


@partial(jax.jit, static_argnums=0)
def _outputs(graph: Any, state: nnx.State, batch: Batch) -> Outputs:
    return nnx.merge(graph, state)(batch)


def load_run(folder: Path | str) -> Trained:
    """Return the model of a finished run, all of whose files are as they were written.

    Raises:
        DataError: the run is not finished, or a file of it is damaged or of another run; the message names the file.
    """
    folder = Path(folder)
    run = finished_run(folder)
    run.verify()
    warn_unverified([run])
    config = result.configuration(run)
    words = folder / VOCABULARY
    stored = run.read_object(VOCABULARY)
    try:
        codec = TASKS[config.task].codec_of(config.data, stored)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{words} is not of the task {config.task}: {type(error).__name__} {error}.") from None
    objective, _ = build.objective(config, codec.sizes)
    state = nnx.state(objective)
    content = run.content(PARAMETERS, most_bytes(state))
    nnx.update(objective, parse_parameters(content, f"{folder / PARAMETERS}", state))
    return Trained(config, objective, codec)
