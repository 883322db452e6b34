"""A dictionary: a text says every triple of the training data whose subject and object stand in its words."""

import operator
from functools import reduce
from typing import Any

from experiments.base.contracts import Task
from experiments.base.errors import UsageError
from experiments.data.triples import TripleTask
from experiments.objectives.triples import TripleSets


def triples(task: type[Task], options: Any) -> dict[str, Any]:
    """Score the dictionary of the training split on validation, that of training and validation on test.

    Nothing is chosen, so validation may be in the dictionary; `training_only` are the scores on test without it.
    """
    if not issubclass(task, TripleTask):
        raise UsageError("the objective triples needs predicates and kinds, which the task has not.")
    data = task(options)
    examples = [*task.examples(options)]
    more = [example._replace(split="train") for example in examples if example.split == "validation"]
    both = task(options, examples + more)
    return {
        "encoder": "dictionary",
        "pooler": "triples of train and validation",
        "test": _scores(both, "test"),
        "training_only": _scores(data, "test"),
        "validation": _scores(data, "validation"),
        "parameters": len(both.codec.targets.to_json()["known"]),
        "data": data.describe(),
    }


def _scores(data: TripleTask, split: str) -> dict[str, float]:
    """Return the scores of all known triples that the texts of a split could say."""
    parts = []
    for batch in data.batches(split):
        found: Any = batch
        parts.append(TripleSets.of(batch.targets, found.known, found.known, found.known, found.forms, batch.weights))
    scores = reduce(operator.add, parts).compute()
    return {name: value for name, value in scores.items() if not name.startswith("ceiling")}
