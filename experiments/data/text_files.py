"""The user's own file: CSV, TSV or JSON lines with a column of texts and one of classes, tags or numbers."""

import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import NO_JSON
from experiments.data.text import Example, held_out, split_by_hash

TEXT_NAMES = ("text", "sentence", "review", "content", "body", "document", "message", "comment", "tweet", "title")
LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "rating", "stars", "score", "topic", "y")
SPLIT_NAMES = ("split", "fold", "subset", "partition")
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
MOST_CLASSES = 100
MOST_TAGS = 1000
BETWEEN_TAGS = "|"
MOST_SKIPPED = 1000  # one row in a thousand
Rows: TypeAlias = Iterator[tuple[int, Any]]
"""Number and columns of every row, or why it cannot be used; the names of the columns come first."""


class Table(NamedTuple):
    """What a file holds."""

    examples: list[Example]
    facts: dict[str, int]
    """How many rows were skipped and how many bytes were no UTF-8."""


class BadRowError(Exception):
    """Why a row cannot be used."""


def read(
    path: Path | None,
    *,
    text: str = "",
    label: str = "",
    split: str = "",
    skip: bool = False,
    targets: str = "class",
    megabytes: int = 1024,
) -> Table:
    """Return the examples of a file of at most `megabytes`; a column whose name is not given is found by its name.

    `targets` says what the column of the label holds: a class, tags or a number.

    Raises:
        DataError: one line with the file, the row and what was expected.
    """
    if path is None:
        raise DataError("no file is given: --task file --path reviews.csv")
    content, replaced = _decode(path, megabytes)
    lines = io.StringIO(content, newline="\n")
    rows = json_rows(lines) if path.suffix in JSON_ENDINGS else csv_rows(lines, path, max(len(content), 1))
    place, names = next(rows, (0, []))
    if isinstance(names, BadRowError):
        raise DataError(f"{path.name}, row {place}: {names}")
    columns = _columns(path, names, text, label, split) if names else ("", "", "")
    examples, bad = [], []
    for number, row in rows:
        try:
            examples.append(_example(row, *columns, _TARGETS[targets]))
        except BadRowError as error:
            bad.append(f"{path.name}, row {number}: {error}")
            if not skip:
                raise DataError(bad[0]) from None
    if not examples and not bad:
        raise DataError(f"{path.name} has no rows: expected a header and at least one row.")
    if len(bad) * MOST_SKIPPED > len(bad) + len(examples):
        raise DataError(f"{len(bad)} of {len(bad) + len(examples)} rows are bad, more than 0.1 %; first: {bad[0]}")
    if targets != "number":
        _check_names(f"{path.name}, column {columns[1]!r}", [example.target for example in examples], targets)
    return Table(_with_validation(examples), {"skipped_rows": len(bad), "replaced_characters": replaced})


def _check_names(where: str, targets: list[Any], kind: str) -> None:
    """Raise where there are too few or too many classes or tags."""
    least, most, words = (2, MOST_CLASSES, "classes") if kind == "class" else (1, MOST_TAGS, "tags")
    names = set(targets) if kind == "class" else set().union(*targets)
    if not least <= len(names) <= most:
        found = f"only {names.pop()!r}" if len(names) == 1 else f"{len(names)}"
        raise DataError(f"{where}: expected {least} to {most} {words}, found {found}.")


def _decode(path: Path, megabytes: int) -> tuple[str, int]:
    """Return the text of a file and how many characters replace what is no UTF-8."""
    content = files.content(path, megabytes * 2**20, "--data.max-megabytes allows more, which memory must hold")
    if b"\0" in content:
        raise DataError(f"{path.name} is no text in UTF-8: it holds zero bytes, as UTF-16 and binary files do.")
    text = content.decode("utf-8-sig", errors="replace")
    return text, text.count("\ufffd") - content.count("\ufffd".encode())


def csv_rows(lines: Iterable[str], path: Path, longest: int = files.LONGEST_LINE) -> Rows:
    """Yield the rows of a table, no field of which has more than `longest` characters; the header is row 1."""
    lines = iter(lines)
    header_line = next(lines, "")
    tabs = path.suffix in (".tsv", ".tab") or header_line.count("\t") > header_line.count(",")
    source = itertools.chain([header_line] if header_line else [], lines)
    header: list[str] = []
    for number, row in files.rows(source, path.name, delimiter="\t" if tabs else ",", strict=True, longest=longest):
        if number == 1:
            header = [name.strip() for name in row]
            yield number, header
        elif len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        elif row:
            yield number, BadRowError(f"found {len(row)} columns, expected {len(header)} ({', '.join(header)}).")


def json_rows(lines: Iterable[str]) -> Rows:
    """Yield the objects that stand one a line; the first one names the columns."""
    named = False
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = _object(line)
            if not named:
                yield number, row if isinstance(row, BadRowError) else list(row)
                named = True
            yield number, row


def _object(line: str) -> dict[str, Any] | BadRowError:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except BadRowError as error:
        return error
    except NO_JSON as error:
        return BadRowError(f"expected one JSON object a line: {getattr(error, 'msg', error)}.")
    return row if isinstance(row, dict) else BadRowError("expected a JSON object.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose names are all different; of equal ones Python would keep the last."""
    if len(values := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadRowError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands there twice.")
    return values


def find_column(file: str, names: list[str], kind: str, given: str, known: tuple[str, ...]) -> str:
    """Return the column that is given, or the first one of a known name; "" where there is none."""
    if given and given not in names:
        raise DataError(f"{file} has no column {given!r} for the {kind}: it has {', '.join(names)}.")
    return given or next((name for word in known for name in names if name.lower() == word), "")


def _columns(path: Path, names: list[str], text: str, label: str, split: str) -> tuple[str, str, str]:
    """Return the columns of text, class and split ("" when there is none)."""
    find = partial(find_column, path.name, names)

    found = {"text": find("text", text, TEXT_NAMES), "label": find("label", label, LABEL_NAMES)}
    for kind, other in (("text", "label"), ("label", "text")):
        if not found[kind] and found[other] and len(names) == 2:
            found[kind] = names[1 - names.index(found[other])]
    for kind, name in found.items():
        if not name:
            raise DataError(f"{path.name}: which column is the {kind}? Give --data.{kind}, one of {', '.join(names)}.")
    used = found["text"], found["label"], find("split", split, SPLIT_NAMES)
    for name in used:
        if names.count(name) > 1:
            raise DataError(f"{path.name}, row 1: found {names.count(name)} columns {name!r}, expected one.")
    return used


def _class(value: str, column: str) -> str:
    if not value:
        raise BadRowError(f"the label is missing (column {column!r}).")
    return value


def _tags(value: str, column: str) -> tuple[str, ...]:
    """Return the tags of a text, which may be none."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, value.split(BETWEEN_TAGS)))))


def _number(value: str, column: str) -> float:
    try:
        number = float(_class(value, column))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRowError(f"column {column!r} holds {value!r}, expected a number.")
    return number


_TARGETS: dict[str, Callable[[str, str], Any]] = {"class": _class, "tags": _tags, "number": _number}


def _example(row: Any, text: str, label: str, split: str, target_of: Callable[[str, str], Any]) -> Example:
    """Return the example of a row, or raise."""
    if isinstance(row, BadRowError):
        raise row
    values = {name: cell(row, name) for name in (text, label, split) if name}
    target = target_of(values[label], label)
    if not values[text]:
        raise BadRowError(f"the text is missing (column {text!r}).")
    if not split:
        return Example(values[text], target, split_by_hash(values[text]))
    if values[split].lower() not in SPLITS:
        raise BadRowError(f"column {split!r} holds {values[split]!r}, expected one of {', '.join(SPLITS)}.")
    return Example(values[text], target, SPLITS[values[split].lower()])


def cell(row: dict[str, Any], name: str) -> str:
    """Return the text of a column of a row, "" where there is none, or raise BadRowError."""
    value = row.get(name)
    if isinstance(value, list | dict):
        raise BadRowError(f"column {name!r} holds a JSON {type(value).__name__}, expected text or a number.")
    text = "" if value is None else str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRowError("half of a character (an escape of \\ud800 to \\udfff without its other half).")
    return text


def _with_validation(examples: list[Example]) -> list[Example]:
    """Return the examples, a tenth of the training part held out when no example is for validation."""
    if any(example.split == "validation" for example in examples):
        return examples
    return [row._replace(split=held_out(row.text)) if row.split == "train" else row for row in examples]
