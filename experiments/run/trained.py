"""A trained run back in memory, from its folder alone."""

import operator
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.base.contracts import Batch, Codec, Objective, Outputs
from experiments.base.files import content
from experiments.base.json_files import read_object
from experiments.run import build
from experiments.run.config import CONFIG, Config, from_json
from experiments.storage.parameters import PARAMETERS, load_parameters
from experiments.storage.run_folder import VOCABULARY
from experiments.tasks import TASKS


class Trained(NamedTuple):
    """A trained objective with all that its use needs."""

    config: Config
    objective: Objective
    codec: Codec

    def outputs(self, records: Iterable[Any]) -> Iterator[tuple[Batch, Outputs]]:
        """Yield the batches of records, as texts, and what the objective computes of each, without noise."""
        run = jax.jit(partial(_outputs, nnx.graphdef(self.objective)))
        state = nnx.state(self.objective)
        for batch in self.codec.encode(records):
            yield batch, run(state, batch)

    def predict(self, records: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield one readable prediction a record, in their order: `{"label": "plant", "probability": 0.93}`."""
        for batch, outputs in self.outputs(records):
            predictions = jax.device_get(self.objective.predict(outputs))
            real = int(batch.weights.sum())
            yield from self.objective.records(jax.tree.map(operator.itemgetter(slice(real)), predictions), self.codec)


def _outputs(graph: Any, state: nnx.State, batch: Batch) -> Outputs:
    return nnx.merge(graph, state)(batch)


def load_run(folder: Path | str) -> Trained:
    """Return the model of a finished run."""
    folder = Path(folder)
    config = from_json(content(folder / CONFIG))
    codec = TASKS[config.task].codec_of(config.data, read_object(folder / VOCABULARY))
    objective, _ = build.objective(config, codec.sizes)
    nnx.update(objective, load_parameters(folder / PARAMETERS, nnx.state(objective)))
    return Trained(config, objective, codec)
