"""Reviews with a rating each: JSON lines or CSV, packed or not, as the 5-core sets of Amazon are.

Source of those: McAuley, Targett, Shi and van den Hengel, "Image-based Recommendations on Styles and Substitutes"
(SIGIR 2015).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.base.errors import DataError
from experiments.data.lines import decoded, tables
from experiments.data.text_files import JSON_ENDINGS, BadRowError, cell, csv_rows, find_column, json_rows

USER_NAMES = ("reviewerid", "user_id", "user")
ITEM_NAMES = ("asin", "item_id", "item", "parent_asin")
NEEDED = {
    "user": USER_NAMES,
    "item": ITEM_NAMES,
    "rating": ("overall", "rating", "stars", "score"),
    "text": ("reviewtext", "text", "review"),
}
OPTIONAL = {"title": ("summary", "title"), "time": ("unixreviewtime", "timestamp", "time")}


class Review(NamedTuple):
    """What one user has written about one item, and the rating that came with it."""

    user: str
    item: str
    rating: float
    text: str
    """The title, where there is one, is its first line."""
    time: float
    """When it was written; where the file does not say, 0."""


def read(path: Path) -> Iterator[Review]:
    """Yield the reviews of a file in their order.

    The file holds JSON lines (.json, .jsonl, .ndjson) or a table with a header (.csv, .tsv), as it is, packed (.gz,
    .bz2, .xz), or as the only such file of a .zip archive. A column is found by its name, as in
    the sets of Amazon of 2014, 2018 and 2023: `reviewerID` or `user_id`, `asin`, `overall` or `rating`, `reviewText` or
    `text`; a title and a time may be there. A JSON object without a text has an empty one.

    Raises:
        DataError: one line with the file, the row and what was expected.
    """
    for name, file in tables(path):
        lines = decoded(file, name, lambda size: None)
        rows = json_rows(lines) if name.suffix in JSON_ENDINGS else csv_rows(lines, name)
        place, names = next(rows, (0, []))
        if isinstance(names, BadRowError):
            raise DataError(f"{name}, row {place}: {names}")
        columns = _columns(name, names)
        for number, row in rows:
            yield _review(f"{name}, row {number}", row, columns)


def _columns(name: Path, names: list[str]) -> dict[str, str]:
    """Return the columns by what they hold; "" where one that is optional is missing."""
    known = NEEDED | OPTIONAL
    found = {kind: find_column(name.name, names, kind, "", known[kind]) for kind in known}
    for kind, column in found.items():
        if names.count(column) > 1:
            raise DataError(f"{name}, row 1: found {names.count(column)} columns {column!r}, expected one.")
        if kind in NEEDED and not column and not (kind == "text" and name.suffix in JSON_ENDINGS):
            expected = ", ".join(known[kind])
            raise DataError(f"{name} has no column for the {kind} ({expected}): it has {', '.join(names)}.")
    if not found["text"]:
        found["text"] = "reviewText"  # of a JSON object that has none
    return found


def _review(where: str, row: Any, columns: dict[str, str]) -> Review:
    if isinstance(row, BadRowError):
        raise DataError(f"{where}: {row}")
    try:
        values = {kind: cell(row, column) for kind, column in columns.items()}
    except BadRowError as error:
        raise DataError(f"{where}: {error}") from None
    for kind in ("user", "item"):
        if not values[kind]:
            raise DataError(f"{where}: the {kind} is missing (column {columns[kind]!r}).")
    rating = _number(where, values["rating"], columns["rating"])
    time = _number(where, values["time"], columns["time"]) if values["time"] else 0.0
    text = "\n".join(filter(None, (values["title"], values["text"])))
    return Review(values["user"], values["item"], rating, text, time)


def _number(where: str, value: str, column: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not abs(number) < 1e12:
        raise DataError(f"{where}: column {column!r} holds {value[:80]!r}, expected a number.")
    return number
