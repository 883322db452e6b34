"""Files of pairs of texts with a score of how alike they are: tables with a header, and the form of the STS benchmark.

```
sentence_A,sentence_B,relatedness_score        (a header names the columns; commas with quotes, or tabs without)
main-captions TAB MSRvid TAB 2012test TAB 0024 TAB 2.500 TAB A girl ... TAB A girl ...        (STS: no header)
```
"""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.base import files
from experiments.base.errors import DataError
from experiments.data.archives import member

ONE = ("sentence_a", "sentence1", "sentence_1", "text_a", "text1", "text_1", "question1")
OTHER = ("sentence_b", "sentence2", "sentence_2", "text_b", "text2", "text_2", "question2")
SCORE = ("relatedness_score", "similarity_score", "score", "similarity", "relatedness", "rating", "label", "gold")
STS = (5, 6, 4)
"""Columns of the two texts and the score in files of the STS benchmark, which may have more columns."""


class Pair(NamedTuple):
    """Two texts and how alike people find them."""

    one: str
    other: str
    score: float


def read(path: Path) -> list[Pair]:
    """Return the pairs of a file, or of one in an archive: ARCHIVE/NAME.

    Raises:
        DataError: one line with the file, the row and what was expected.
    """
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    content = files.content(path) if archive is None else member(archive, path.relative_to(archive).as_posix())
    text = files.text(content, path.name).removeprefix("\ufeff")
    if "\0" in text:
        raise DataError(f"{path.name} is no text: it holds zero bytes.")
    rows = _rows(text, path.name)
    number, first = next(rows, (1, []))
    if not first:
        raise DataError(f"{path.name} has no rows: expected two texts and a score in each.")
    columns = _columns(first)
    found = [] if columns else [_pair(first, STS, f"{path.name}, row {number}")]
    found += [_pair(row, columns or STS, f"{path.name}, row {number}") for number, row in rows]
    if len({pair.score for pair in found}) < 2:
        raise DataError(f"all {len(found)} pairs of {path.name} have the score {found[0].score}: expected several.")
    return found


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty: split at tabs as they stand, where the first line has one, else CSV."""
    lines = io.StringIO(text)
    if "\t" in text.partition("\n")[0]:
        rows: Iterator[tuple[int, list[str]]] = enumerate((line.rstrip("\r\n").split("\t") for line in lines), start=1)
    else:
        rows = files.rows(lines, where, strict=True)
    return ((number, row) for number, row in rows if any(row))


def _columns(header: list[str]) -> tuple[int, int, int] | None:
    """Return the columns of the texts and the score; None where a row is no header with their names."""
    names = [name.strip().lower() for name in header]
    found = [next((names.index(name) for name in known if name in names), None) for known in (ONE, OTHER, SCORE)]
    one, other, score = found
    return None if one is None or other is None or score is None else (one, other, score)


def _pair(row: list[str], columns: tuple[int, int, int], where: str) -> Pair:
    one, other, score = columns
    if len(row) <= max(columns):
        expected = f"{max(columns) + 1} or more, or a header such as {ONE[1]}, {OTHER[1]}, {SCORE[2]}"
        raise DataError(f"{where}: found {len(row)} columns, expected {expected}.")
    try:
        number = float(row[score])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}, column {score + 1}: found {row[score]!r}, expected a score.")
    if not row[one].strip() or not row[other].strip():
        raise DataError(f"{where}: a text is missing.")
    return Pair(row[one].strip(), row[other].strip(), number)
