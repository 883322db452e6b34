"""The user's own file: CSV, TSV or JSON lines with a column of texts and a column of classes."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.base.errors import DataError
from experiments.base.json_files import NO_JSON
from experiments.data.text import Example, held_out, split_by_hash

TEXT_NAMES = ("text", "sentence", "review", "content", "body", "document", "message", "comment", "tweet", "title")
LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "rating", "stars", "score", "topic", "y")
SPLIT_NAMES = ("split", "fold", "subset", "partition")
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
MOST_CLASSES = 100
MOST_SKIPPED = 1000  # one row in a thousand


class Table(NamedTuple):
    """What a file holds."""

    examples: list[Example]
    facts: dict[str, int]
    """How many rows were skipped and how many bytes were no UTF-8."""


class BadRowError(Exception):
    """Why a row cannot be used."""


def read(path: Path | None, *, text: str = "", label: str = "", split: str = "", skip: bool = False) -> Table:
    """Return the examples of a file; a column whose name is not given is found by its name.

    Raises:
        DataError: one line with the file, the row and what was expected.
    """
    if path is None:
        raise DataError("no file is given: --task file --path reviews.csv")
    content, replaced = _decode(path)
    lines = io.StringIO(content, newline="")
    rows = json_rows(lines) if path.suffix in JSON_ENDINGS else csv_rows(lines, path)
    place, first = next(rows, (0, None))
    if first is None:
        raise DataError(f"{path.name} has no rows: expected a header and at least one row.")
    if isinstance(first, BadRowError):
        raise DataError(f"{path.name}, row {place}: {first}")
    columns = _columns(path, list(first), text, label, split)
    examples, bad = [], []
    for number, row in itertools.chain([(place, first)], rows):
        try:
            examples.append(_example(row, *columns))
        except BadRowError as error:
            bad.append(f"{path.name}, row {number}: {error}")
            if not skip:
                raise DataError(bad[0]) from None
    if len(bad) * MOST_SKIPPED > len(bad) + len(examples):
        raise DataError(f"{len(bad)} of {len(bad) + len(examples)} rows are bad, more than 0.1 %; first: {bad[0]}")
    classes = {example.target for example in examples}
    if not 2 <= len(classes) <= MOST_CLASSES:
        found = f"only {classes.pop()!r}" if len(classes) == 1 else f"{len(classes)}"
        raise DataError(f"{path.name}, column {columns[1]!r}: expected 2 to {MOST_CLASSES} classes, found {found}.")
    return Table(_with_validation(examples), {"skipped_rows": len(bad), "replaced_characters": replaced})


def _decode(path: Path) -> tuple[str, int]:
    """Return the text of a file and how many characters replace what is no UTF-8."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path} is no file: give --path a CSV, TSV or JSON-lines file.") from None
    if b"\0" in content:
        raise DataError(f"{path.name} is no text in UTF-8: it holds zero bytes, as UTF-16 and binary files do.")
    text = content.decode("utf-8-sig", errors="replace")
    return text, text.count("\ufffd") - content.count("\ufffd".encode())


def csv_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and columns of every row of a table, or the BadRowError of a row; the header is row 1."""
    csv.field_size_limit(2**31 - 1)
    lines = iter(lines)
    header_line = next(lines, "")
    tabs = path.suffix in (".tsv", ".tab") or header_line.count("\t") > header_line.count(",")
    reader = csv.reader(itertools.chain([header_line], lines), delimiter="\t" if tabs else ",", strict=True)
    header: list[str] = []
    try:
        for number, row in enumerate(reader, start=1):
            if number == 1:
                header = [name.strip() for name in row]
            elif len(row) == len(header):
                yield number, dict(zip(header, row, strict=True))
            elif row:
                expected = f"expected {len(header)} columns ({', '.join(header)}), found {len(row)}."
                yield number, BadRowError(expected)
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}; expected quotes that close.") from None


def json_rows(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Yield number and fields of every line, or the BadRowError of a line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except NO_JSON as error:
                row = BadRowError(f"expected one JSON object a line: {getattr(error, 'msg', error)}.")
            yield number, row if isinstance(row, dict | BadRowError) else BadRowError("expected a JSON object.")


def find_column(file: str, names: list[str], kind: str, given: str, known: tuple[str, ...]) -> str:
    """Return the column that is given, or the first one of a known name; "" where there is none."""
    if given and given not in names:
        raise DataError(f"{file} has no column {given!r} for the {kind}: it has {', '.join(names)}.")
    return given or next((name for word in known for name in names if name.lower() == word), "")


def _columns(path: Path, names: list[str], text: str, label: str, split: str) -> tuple[str, str, str]:
    """Return the columns of text, class and split ("" when there is none)."""

    def find(kind: str, given: str, known: tuple[str, ...]) -> str:
        return find_column(path.name, names, kind, given, known)

    found = {"text": find("text", text, TEXT_NAMES), "label": find("label", label, LABEL_NAMES)}
    for kind, other in (("text", "label"), ("label", "text")):
        if not found[kind] and found[other] and len(names) == 2:
            found[kind] = names[1 - names.index(found[other])]
    for kind, name in found.items():
        if not name:
            raise DataError(f"{path.name}: which column is the {kind}? Give --data.{kind}, one of {', '.join(names)}.")
    return found["text"], found["label"], find("split", split, SPLIT_NAMES)


def _example(row: Any, text: str, label: str, split: str) -> Example:
    """Return the example of a row, or raise."""
    if isinstance(row, BadRowError):
        raise row
    values = {name: "" if row.get(name) is None else str(row[name]).strip() for name in (text, label, split) if name}
    if any("\ud800" <= character <= "\udfff" for character in "".join(values.values())):
        raise BadRowError("half of a character (an escape of \\ud800 to \\udfff without its other half).")
    if not values[label]:
        raise BadRowError(f"the label is missing (column {label!r}).")
    if not values[text]:
        raise BadRowError(f"the text is missing (column {text!r}).")
    if not split:
        return Example(values[text], values[label], split_by_hash(values[text]))
    if values[split].lower() not in SPLITS:
        raise BadRowError(f"column {split!r} holds {values[split]!r}, expected one of {', '.join(SPLITS)}.")
    return Example(values[text], values[label], SPLITS[values[split].lower()])


def _with_validation(examples: list[Example]) -> list[Example]:
    """Return the examples, a tenth of the training part held out when no example is for validation."""
    if any(example.split == "validation" for example in examples):
        return examples
    return [row._replace(split=held_out(row.text)) if row.split == "train" else row for row in examples]
