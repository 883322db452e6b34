"""Predictions as lines on stdout."""

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.base import streams
from experiments.base.errors import printable


def write_jsonl(records: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object a line."""
    for record in records:
        print(_shown(json.dumps(record, ensure_ascii=False)))


def write_csv(records: Iterable[dict[str, Any]]) -> None:
    """Print a header and one row a record; what is no text or number stands there as JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, record in enumerate(records):
        if number == 0:
            writer.writerow(record)
        cells = (json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in record.values())
        writer.writerow(_shown(cell) if isinstance(cell, str) else cell for cell in cells)


def _shown(text: str) -> str:
    """Return a text without what would move the cursor of a terminal, where stdout is one; a file gets it as it is."""
    return printable(text) if sys.stdout.isatty() else text


def while_read(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield records until nobody reads any more what is printed of them."""
    return itertools.takewhile(lambda record: streams.is_read(), records)
