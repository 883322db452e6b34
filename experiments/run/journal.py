"""What a run remembers while it trains: validations and the best of them. Records are written here and nowhere else."""

import math
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tensorboardX import SummaryWriter

from experiments.base import devices
from experiments.base.contracts import Last, Mean
from experiments.run.diagnostics import numbers
from experiments.run.progress import Progress
from experiments.storage.run_folder import METRICS, TENSORBOARD, RunFolder

SKIPPED = "skipped.jsonl"


class Rules(NamedTuple):
    """What a journal must know of a run: the length of an epoch, and which validation is the best."""

    steps_per_epoch: int
    chosen_by: tuple[str, str]
    """A metric, and "max" or "min"."""


class Journal:
    """Listens to the loop; writes a line of `metrics.jsonl` a validation and keeps the parameters of the best.

    A record holds nothing that the clock decides, so the file is the same however often the run was interrupted.
    """

    def __init__(self, rules: Rules, folder: RunFolder, progress: Progress, tensorboard: bool = False):
        self._rules = rules
        self._folder = folder
        self._progress = progress
        self._board = self._new_board() if tensorboard and devices.is_first() else None
        self._losses: list[float] = []
        self._scalars: dict[str, list[float]] = {}
        self.tokens = 0
        self.steps = 0
        self.records: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.best_record: dict[str, Any] = {}
        self.best_parameters: nnx.State = nnx.State({})

    @property
    def stale(self) -> int:
        """Number of validations since the best one."""
        return len(self.records) - 1 - self.records.index(self.best_record)

    def step(self, loss: float, tokens: int, scalars: Mapping[str, Mean | Last]) -> None:
        """Note a training step with its loss and the scalars that the objective logs."""
        self._losses.append(loss)
        for name, value in numbers(scalars).items():
            earlier = [] if isinstance(scalars[name], Last) else self._scalars.get(name, [])
            self._scalars[name] = [*earlier, value]
        self._count(tokens)

    def skip(self, step: int, tokens: int, reason: str, loss: float, rows: list[int]) -> None:
        """Note a step that was not accepted, and say so."""
        shown = loss if math.isfinite(loss) else str(loss)
        record = {"step": step, "not_finite": reason, "loss": shown, "rows": rows}
        self.skipped.append(record)
        self._folder.append(SKIPPED, record)
        self._count(tokens)
        self._progress.say(f"{self.last_skip()}: step skipped ({self.skipped_in_row} in a row).")

    def last_skip(self) -> str:
        """Return the sentence on the last step that was not accepted."""
        last = self.skipped[-1]
        return f"{last['not_finite']} is not finite at step {last['step']} (loss {last['loss']}, texts in {SKIPPED})"

    @property
    def skipped_in_row(self) -> int:
        """Number of steps up to the last one of which none was accepted."""
        at = {record["step"] for record in self.skipped}
        return next(count for count in range(len(at) + 1) if self.steps - 1 - count not in at)

    def validation(self, step: int, scores: dict[str, float], parameters: nnx.State, p: Any) -> None:
        """Note the scores, the exponent if there is one, and the mean training loss since the last validation."""
        train_loss = float(np.mean(self._losses)) if self._losses else None
        record = {"step": step, "epoch": step / self._rules.steps_per_epoch, "train_loss": train_loss}
        record |= {f"train_{name}": float(np.mean(values)) for name, values in self._scalars.items()}
        record |= scores
        if p is not None:
            record["p"] = np.asarray(p, float).tolist()
        self._losses, self._scalars = [], {}
        self.records.append(record)
        self._folder.append(METRICS, record)
        self._show(record)
        self._progress.validation(record)
        if self._is_best(record):
            self.best_record = record
            # A copy, because the next training step donates the buffers of its parameters.
            self.best_parameters = jax.tree.map(jnp.copy, parameters)

    def snapshot(self) -> dict[str, Any]:
        """Return all that `restore` needs, but the best parameters, as JSON can hold it."""
        kept = ("tokens", "steps", "records", "skipped", "_losses", "_scalars")
        return {name.lstrip("_"): getattr(self, name) for name in kept}

    def restore(self, snapshot: dict[str, Any], best_parameters: nnx.State) -> None:
        """Become what the journal of a snapshot was, or a new one, and make the files say the same."""
        self.tokens, self.steps = snapshot.get("tokens", 0), snapshot.get("steps", 0)
        self.records, self.skipped = snapshot.get("records", []), snapshot.get("skipped", [])
        self._losses, self._scalars = snapshot.get("losses", []), snapshot.get("scalars", {})
        self.best_parameters = best_parameters
        for name, records in ((METRICS, self.records), (SKIPPED, self.skipped)):
            self._folder.replace(name, records)
        for record in self.records:
            self._show(record)
            if self._is_best(record):
                self.best_record = record
        self._progress.resume(self.steps)

    def _is_best(self, record: dict[str, Any]) -> bool:
        """Tell whether a validation is better than all before."""
        name, mode = self._rules.chosen_by
        if not self.best_record:
            return True
        new, best = record[name], self.best_record[name]
        return new > best if mode == "max" else new < best

    def _count(self, tokens: int) -> None:
        """Count a step."""
        self.tokens += tokens
        self.steps += 1
        self._progress.step()

    def _new_board(self) -> SummaryWriter:
        """Return an empty log for TensorBoard, which `restore` fills again from the records."""
        folder = self._folder.path / TENSORBOARD
        shutil.rmtree(folder, ignore_errors=True)
        return SummaryWriter(str(folder))

    def _show(self, record: dict[str, Any]) -> None:
        """Write a record for TensorBoard; exponents that are many become their mean."""
        if self._board is not None:
            for name in record.keys() - {"step", "epoch"}:
                if record[name] is not None:
                    self._board.add_scalar(name, np.mean(record[name]), record["step"])
            self._board.flush()

    def close(self) -> None:
        """Finish what is written."""
        if self._board is not None:
            self._board.close()
