"""Where an option belongs that the chosen task, encoder, pooler and objective have not."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.encoders import ENCODERS
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.tasks import TASKS

_TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "data": ("task", TASKS),
    "encode": ("encoder", ENCODERS),
    "pool": ("pooler", POOLERS),
    "head": ("objective", OBJECTIVES),
}
"""The group of options, the option that chooses an entry, and the table of entries."""


def belonging(option: str) -> str:
    """Return which entries of a table have an option, as "it belongs to --task file."; nothing where none has.

    >>> belonging("--path")
    'it belongs to --task file.'
    >>> belonging("--pool.sharpness")
    'it belongs to --pooler log_sum_exp or soft_pool.'
    """
    group, _, name = option.lstrip("-").replace("-", "_").rpartition(".")
    for known, (kind, table) in _TABLES.items():
        entries = [entry for entry, row in table.items() if name in _names(row.Options)] if group in ("", known) else []
        if entries:
            *others, last = entries
            return f"it belongs to --{kind} {' or '.join([*filter(None, [', '.join(others)]), last])}."
    return ""


def _names(options: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(options)}
