"""Texts from a file or a pipe, one at a time: text lines, CSV, TSV or JSON lines. Nothing but a line is in memory."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from experiments.base import files
from experiments.base.errors import DataError
from experiments.data import archives
from experiments.data.text_files import (
    JSON_ENDINGS,
    TEXT_NAMES,
    BadRowError,
    Rows,
    cell,
    csv_rows,
    find_column,
    json_rows,
)

CSV_ENDINGS = (".csv", ".tsv", ".tab")
PACKED = (".gz", ".bz2", ".xz", ".zip")
LARGEST_TABLE = 2**33
"""Bytes that a packed table may unpack to."""


def texts(file: BinaryIO, path: Path, column: str, seen: Callable[[int], object]) -> Iterator[str]:
    """Yield the texts of a file, whose format follows from the ending of its path: every line one, or one a row.

    Args:
        file: the open file.
        path: its path, for the kind and for messages.
        column: the column of the text in CSV, TSV or JSON lines; found by its name where it is "".
        seen: is called with the bytes of every line that was read.

    Raises:
        DataError: one line with the file, the line or row and what was expected.
    """
    found = decoded(file, path, seen)
    if path.suffix not in (*JSON_ENDINGS, *CSV_ENDINGS):
        if column:
            raise DataError(f"{path.name} has no columns: --column is for {', '.join(CSV_ENDINGS + JSON_ENDINGS)}.")
        yield from (line.rstrip("\r\n") for line in found)
        return
    names, rows = _rows(found, path)
    name = _column(path, names, column) if names else ""
    for number, row in rows:
        _check(row, name, "text", f"{path.name}, row {number}")
        yield "" if row[name] is None else str(row[name])


def tuples(
    file: BinaryIO, path: Path, fields: Mapping[str, tuple[str, ...]], seen: Callable[[int], object]
) -> Iterator[tuple[str, ...]]:
    """Yield a tuple of texts a row of CSV, TSV or JSON lines; see `texts`.

    Args:
        file: the open file.
        path: its path, for the kind and for messages; JSON lines where the ending says nothing.
        fields: what a tuple holds, in its order, and for each the names that its column may have.
        seen: is called with the bytes of every line that was read.
    """
    names, rows = _rows(decoded(file, path, seen), path)
    columns = {kind: find_column(path.name, names, kind, "", known) for kind, known in fields.items()}
    for kind, column in columns.items():
        if names and not column:
            expected = ", ".join(fields[kind])
            raise DataError(f"{path.name} has no column for the {kind} ({expected}): it has {', '.join(names)}.")
    for number, row in rows:
        where = f"{path.name}, row {number}"
        for kind, column in columns.items():
            _check(row, column, kind, where)
        try:
            yield tuple(cell(row, column) for column in columns.values())
        except BadRowError as error:
            raise DataError(f"{where}: {error}") from None


def tables(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield name and content of the table that a path holds: itself, what it unpacks to, or the one of an archive."""
    name, endings = Path(path.name), (*JSON_ENDINGS, *CSV_ENDINGS)
    inner = Path(name.stem) if name.suffix in PACKED else name
    if wrong := files.why_not(path):
        raise DataError(f"{path.name} {wrong}.")
    if name.suffix == ".zip":
        found = [member for member in archives.names(path) if member.endswith(endings)]
        if len(found) != 1:
            raise DataError(f"{path.name} has {len(found)} files of {', '.join(endings)}: expected one.")
        for member, file in archives.streams(path, found.__contains__, LARGEST_TABLE, LARGEST_TABLE):
            yield Path(Path(member).name), file
    elif inner.suffix not in endings:
        raise DataError(f"{path.name} ends in none of {', '.join(endings)}, with {', '.join(PACKED)} behind it or not.")
    elif inner != name:
        with files.unpacked(path, LARGEST_TABLE) as file:
            yield inner, file
    else:
        with files.opened(path) as file:
            yield name, file


def _rows(lines: Iterator[str], path: Path) -> tuple[list[str], Rows]:
    """Return the names of the columns and the rows of a table."""
    rows = csv_rows(lines, path) if path.suffix in CSV_ENDINGS else json_rows(lines)
    place, names = next(rows, (0, []))
    if isinstance(names, BadRowError):
        raise DataError(f"{path.name}, row {place}: {names}")
    return names, rows


def _check(row: Any, name: str, kind: str, where: str) -> None:
    """Raise DataError unless a row can be used and has the column."""
    if isinstance(row, BadRowError):
        raise DataError(f"{where}: {row}")
    if name not in row:
        raise DataError(f"{where}: the {kind} is missing (column {name!r}).")


def _column(path: Path, names: list[str], given: str) -> str:
    """Return the column of the text: the one that is given, one of a known name, or the only one."""
    found = find_column(path.name, names, "text", given, TEXT_NAMES) or (names[0] if len(names) == 1 else "")
    if not found:
        raise DataError(f"{path.name}: which column is the text? Give --column, one of {', '.join(names)}.")
    return found


def decoded(file: BinaryIO, path: Path, seen: Callable[[int], object]) -> Iterator[str]:
    """Yield the lines of a file in UTF-8 with their ends, without the mark of byte order that may come first."""
    for number, line in files.lines(file, path.name):
        seen(len(line))
        where = f"{path.name}, line {number}"
        if b"\0" in line:
            raise DataError(f"{where}: no text in UTF-8: it holds zero bytes, as UTF-16 and binary files do.")
        yield files.text(line, where).removeprefix("\ufeff" if number == 1 else "")
