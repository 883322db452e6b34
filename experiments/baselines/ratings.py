"""What ratings come to without a word of text: a number a user and a number an item, by ridge regression."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse import linalg

from experiments.base.contracts import Task
from experiments.base.errors import UsageError
from experiments.data.rating_task import RatingTask
from experiments.objectives.rating import Errors

RIDGES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0)
"""Strengths of the penalty, against the sum of the squared errors."""


def rating(task: type[Task], options: Any) -> dict[str, Any]:
    """Score mean + b_user + b_item, the penalty of the squares of b chosen on validation; beside it the mean alone.

    Raises:
        UsageError: the task has no ratings.
    """
    if not issubclass(task, RatingTask):
        raise UsageError("the baseline of ratings needs a task of ratings, as amazon_ratings.")
    data = task(options)
    mean, columns = data.codec.sizes["mean"], {side: int(data.codec.sizes[f"{side}s"]) for side in ("user", "item")}
    width = sum(columns.values())
    inputs = {name: _indicators(np.array(split.ids), columns["user"], width) for name, split in data.splits.items()}
    targets = {name: split.targets.astype(np.float64) for name, split in data.splits.items()}

    def scores(split: str, biases: Float[np.ndarray, " N"]) -> dict[str, float]:
        found, ones = mean + inputs[split] @ biases, np.ones(len(targets[split]))
        return Errors.of(found, targets[split], ones, mean).compute()

    fitted = {ridge: _ridge(inputs["train"], targets["train"] - mean, ridge) for ridge in RIDGES}
    best = min(RIDGES, key=lambda ridge: scores("validation", fitted[ridge])["mse"])
    chosen, alone = (
        {split: scores(split, biases) for split in ("test", "validation")} for biases in (fitted[best], np.zeros(width))
    )
    return {
        "encoder": "ids",
        "pooler": "biases",
        **chosen,
        "ridge": best,
        "parameters": width - 2 + 1,
        "data": data.describe(),
        "beside": {"the mean of the training split": alone},
    }


def _indicators(ids: np.ndarray, users: int, width: int) -> Any:
    """Return a row a rating with a 1 in the column of its user and one in that of its item; none for unknown ones."""
    places = ids + np.array([0, users])
    rows, sides = np.nonzero(ids)
    return sparse.csr_matrix((np.ones(len(rows)), (rows, places[rows, sides])), (len(ids), width))


def _ridge(inputs: Any, targets: Float[np.ndarray, " N"], ridge: float) -> Float[np.ndarray, " D"]:
    """Return b that minimises |y - X b|^2 + ridge |b|^2."""
    normal = (inputs.T @ inputs + ridge * sparse.eye_array(inputs.shape[1])).tocsc()
    return linalg.spsolve(normal, inputs.T @ targets)
