"""What a run remembers while it trains: validations, the best of them, where the time went."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.contracts import Task
from experiments.progress import Progress
from experiments.writer import RunFolder


class Clock:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time that the block takes."""
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began


class Journal:
    """Listens to the loop; writes a line of `metrics.jsonl` a validation and keeps the parameters of the best."""

    def __init__(self, task: Task, folder: RunFolder, progress: Progress):
        self._task = task
        self._folder = folder
        self._progress = progress
        self._losses: list[float] = []
        self.clock = Clock()
        self.tokens = 0
        self.records: list[dict[str, Any]] = []
        self.best_record: dict[str, Any] = {}
        self.best_parameters: nnx.State = nnx.State({})

    def step(self, loss: float, tokens: int) -> None:
        """Note a training step."""
        self._losses.append(loss)
        self.tokens += tokens
        self._progress.step()

    def validation(self, step: int, scores: dict[str, float], parameters: nnx.State, p: Any) -> None:
        """Note the scores, the exponent if there is one, and the mean training loss since the last validation."""
        train_loss = float(np.mean(self._losses)) if self._losses else None
        record = {"step": step, "epoch": step / self._task.steps_per_epoch, "train_loss": train_loss, **scores}
        if p is not None:
            record["p"] = np.asarray(p, float).tolist()
        self._losses = []
        self.records.append(record)
        self._folder.append("metrics.jsonl", record)
        self._progress.validation(record)
        chosen_by = self._task.chosen_by
        if not self.best_record or record[chosen_by] > self.best_record[chosen_by]:
            self.best_record = record
            # A copy, because the next training step donates the buffers of its parameters.
            self.best_parameters = jax.tree.map(jnp.copy, parameters)
