"""JSON files that another program may have written or damaged, read with one-line errors."""

import json
from pathlib import Path
from typing import Any

from experiments.base import files
from experiments.base.errors import DataError, HarnessError

NO_JSON = (ValueError, RecursionError)
"""What reading JSON or TOML raises: for bad syntax or UTF-8, for numbers of too many digits, for too deep nesting."""


def text_of(path: Path) -> str:
    """Return the content of a file in UTF-8, or raise DataError."""
    return files.text(files.content(path), path)


def object_of(text: str | bytes, where: object, kind: type[HarnessError] = DataError) -> dict[str, Any]:
    """Return the JSON object that a text holds, or raise an error of a kind whose message begins with `where`."""
    try:
        value = json.loads(text)
    except NO_JSON as error:
        raise kind(f"{where} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise kind(f"{where} must hold a JSON object, found {type(value).__name__}.")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, or raise DataError."""
    return object_of(text_of(path), path)
