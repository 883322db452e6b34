"""What a run remembers while it trains: validations, the best of them; the one place that writes records."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tensorboardX import SummaryWriter

from experiments.contracts import Task
from experiments.progress import Progress
from experiments.writer import RunFolder

METRICS = "metrics.jsonl"


class Journal:
    """Listens to the loop; writes a line of `metrics.jsonl` a validation and keeps the parameters of the best."""

    def __init__(self, task: Task, folder: RunFolder, progress: Progress, tensorboard: bool = False):
        self._task = task
        self._folder = folder
        self._progress = progress
        self._board = SummaryWriter(str(folder.path / "tensorboard")) if tensorboard else None
        self._losses: list[float] = []
        self.tokens = 0
        self.steps = 0
        self.records: list[dict[str, Any]] = []
        self.best_record: dict[str, Any] = {}
        self.best_parameters: nnx.State = nnx.State({})

    @property
    def stale(self) -> int:
        """Number of validations since the best one."""
        return len(self.records) - 1 - self.records.index(self.best_record)

    def step(self, loss: float, tokens: int) -> None:
        """Note a training step."""
        self._losses.append(loss)
        self.tokens += tokens
        self.steps += 1
        self._progress.step()

    def validation(self, step: int, scores: dict[str, float], parameters: nnx.State, p: Any) -> None:
        """Note the scores, the exponent if there is one, and the mean training loss since the last validation."""
        train_loss = float(np.mean(self._losses)) if self._losses else None
        record = {"step": step, "epoch": step / self._task.steps_per_epoch, "train_loss": train_loss, **scores}
        if p is not None:
            record["p"] = np.asarray(p, float).tolist()
        self._losses = []
        self.records.append(record)
        self._folder.append(METRICS, record)
        self._show(record)
        self._progress.validation(record)
        chosen_by = self._task.chosen_by
        if not self.best_record or record[chosen_by] > self.best_record[chosen_by]:
            self.best_record = record
            # A copy, because the next training step donates the buffers of its parameters.
            self.best_parameters = jax.tree.map(jnp.copy, parameters)

    def _show(self, record: dict[str, Any]) -> None:
        """Write a record for TensorBoard; exponents that are many become their mean."""
        if self._board is not None:
            for name in record.keys() - {"step", "epoch"}:
                if record[name] is not None:
                    self._board.add_scalar(name, np.mean(record[name]), record["step"])
            self._board.flush()

    def close(self) -> None:
        """Finish what is written."""
        self._progress.close()
        if self._board is not None:
            self._board.close()
