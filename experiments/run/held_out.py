"""Training examples that are set aside for the exponent: they teach it, and nothing else learns from them.

The training loss falls where the other parameters learn noise by heart, and the exponent would follow. The gradient of
the exponent is therefore taken from examples that nothing else has learned from, at the same parameters: the first
order of Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search" (ICLR 2019).
"""

from functools import lru_cache

import numpy as np
from flax import nnx

from experiments.base.contracts import Task
from experiments.base.errors import UsageError
from experiments.layers.text_model import exponents
from experiments.run.config import Config


@lru_cache(maxsize=1 << 20)
def is_held_out(share: float, seed: int, row: int) -> bool:
    """Return whether an example of the training split is set aside: in every epoch the same ones."""
    return bool(np.random.Generator(np.random.Philox(key=[seed, row])).random() < share)


def rows_of(task: Task, config: Config, step: int, size: int) -> np.ndarray | None:
    """Return which of the `size` rows of the batch of a step are set aside, 1 or 0 [B]; None where none ever is."""
    share, seed = config.optim.held_out, config.seed
    if not share:
        return None
    rows = [is_held_out(share, seed, row) for row in task.train_rows(seed, step)]
    return np.array(rows + [False] * (size - len(rows)), np.float32)


def facts(task: Task, config: Config) -> dict[str, int]:
    """Return how many examples of the training split are set aside, by name; nothing where none ever is."""
    share, seed = config.optim.held_out, config.seed
    rows = (row for step in range(task.steps_per_epoch if share else 0) for row in task.train_rows(seed, step))
    return {"held_out": sum(is_held_out(share, seed, row) for row in rows)} if share else {}


def check(task: Task, config: Config, parameters: nnx.State) -> None:
    """Raise UsageError where examples cannot be set aside for an exponent."""
    share = config.optim.held_out
    trained = any(exponents(parameters)) and getattr(config.pool, "exponent", "") != "fixed"
    if share and not trained:
        raise UsageError("no exponent is trained, so no text can teach it: leave out --optim.held-out.")
    if share and not facts(task, config)["held_out"]:
        raise UsageError(f"--optim.held-out {share} sets none of the training texts aside: give a larger share.")
