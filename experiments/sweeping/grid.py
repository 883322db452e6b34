"""From a grid file to its cells: every combination of the listed values, each a complete configuration.

A grid is TOML with the names of `config.json`. A list is an axis; everything else holds for all cells. The tables
`[tasks.NAME]`, `[encoders.NAME]`, `[poolers.NAME]` and `[objectives.NAME]` change the values at the top where that
part is used, and each `[[cells]]` is a product of its own. `about` says in words what the grid is for.

    task = ["trec", "subj"]
    pooler = ["mean", "attention"]
    seed = [0, 1, 2]
    tasks.trec.epochs = 8
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.base.errors import UsageError, unknown
from experiments.base.json_files import NO_JSON, text_of
from experiments.base.options import decisive, from_dict
from experiments.encoders import ENCODERS
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.run.config import NO_POOLER, Config, completed, default_config
from experiments.tasks import TASKS

_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tasks": ("task", TASKS),
    "encoders": ("encoder", ENCODERS),
    "poolers": ("pooler", POOLERS | {NO_POOLER: None}),
    "objectives": ("objective", OBJECTIVES),
}


_SPECIAL = {"about", "cells", *_PARTS}


def read(path: Path) -> dict[str, Any]:
    """Return the content of a grid file."""
    try:
        return parse(text_of(path))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse(text: str) -> dict[str, Any]:
    """Return a grid from its text, its tables checked."""
    try:
        grid = tomllib.loads(text)
    except NO_JSON as error:
        raise UsageError(f"not TOML: {error}") from None
    if not isinstance(grid.get("about", ""), str):
        raise UsageError("about must be text.")
    if not _tables(grid.get("cells", [{}])):
        raise UsageError("cells must be tables: write [[cells]].")
    for table, (kind, known) in _PARTS.items():
        parts = grid.get(table, {})
        if not isinstance(parts, dict) or not _tables(list(parts.values())):
            raise UsageError(f"{table} must hold one table a {kind}: write [{table}.NAME].")
        for name in parts:
            if name not in known:
                raise unknown(kind, name, known)
    return grid


def _tables(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def cells(grid: dict[str, Any], overrides: dict[str, Any] | None = None) -> list[Config]:
    """Return the configurations of a grid, each once, those of one data set side by side.

    Args:
        grid: what `parse` returned.
        overrides: a second grid, without `cells`, that takes precedence over the first one.
    """
    layers = grid, overrides or {}
    common, override = ({key: layer[key] for key in layer if key not in _SPECIAL} for layer in layers)
    defaults = {"task": Config.task, "encoder": Config.encoder, "pooler": None, "objective": None}
    found = {}
    for part in grid.get("cells", [{}]):
        base = merge(defaults, common, part, override)
        for names in product({kind: base[kind] for kind in defaults}):
            of_task = (layer.get("tasks", {}).get(names["task"], {}) for layer in layers)
            default = default_config(**names, data_options=merge(base, *of_task).get("data"))
            names = {kind: getattr(default, kind) for kind in names}
            first, last = (
                [layer.get(table, {}).get(names[kind], {}) for table, (kind, _) in _PARTS.items()] for layer in layers
            )
            for values in product(merge(common, part, *first, override, *last, names)):
                config = completed(from_dict(default, values))
                found[name(config)] = config
    order = {key: index for index, key in enumerate(dict.fromkeys(_data(config) for config in found.values()))}
    return sorted(found.values(), key=lambda config: order[_data(config)])


def _data(config: Config) -> str:
    return f"{config.task} {config.data}"


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return the nested dictionaries as one; later ones win.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merge(result[key], value) if both else value
    return result


def product(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every choice of one element from each list of a nested dictionary.

    >>> [*product({"a": [1, 2], "b": {"c": [3]}, "d": 4})]
    [{'a': 1, 'b': {'c': 3}, 'd': 4}, {'a': 2, 'b': {'c': 3}, 'd': 4}]
    """
    choices = []
    for key, value in values.items():
        if value == []:
            raise UsageError(f"{key} is an empty list: give at least one value.")
        choices.append([*product(value)] if isinstance(value, dict) else value if isinstance(value, list) else [value])
    for choice in itertools.product(*choices):
        yield dict(zip(values, choice, strict=True))


def name(config: Config) -> str:
    """Return the name of a cell's run folder: what a person looks for, and a hash of all that decides the result."""
    text = json.dumps(decisive(config), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    pooler = config.pooler if config.pooler != NO_POOLER else config.objective
    return f"{config.task}-{config.encoder}-{pooler}-seed{config.seed}-{digest[:12]}"
