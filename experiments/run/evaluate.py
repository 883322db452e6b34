"""One pass over a split."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax

from experiments.base.contracts import Task


def evaluate(step: Callable, parameters: Any, task: Task, split: str) -> dict[str, float]:
    """Return the metrics of a split."""
    parts = [step(parameters, batch) for batch in task.evaluation_batches(split)]
    return reduce(operator.add, jax.device_get(parts)).compute()
