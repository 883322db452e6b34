"""What runs have answered to an analysis, in one table: numbers are means over the runs that differ only by chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.base.errors import DataError, UsageError
from experiments.base.json_files import read_object
from experiments.reporting.formats import Cell, Table
from experiments.reporting.records import Row
from experiments.reporting.statistics import estimate
from experiments.reporting.tables import differing_options
from experiments.storage.run_folder import ANALYSES


class _Line(NamedTuple):
    """One line of the answers of a row: its words, and every number by column, a value a run."""

    texts: dict[str, str]
    numbers: dict[str, list[float]]


def table(rows: Sequence[Row], name: str) -> Table:
    """Return the lines of `analyses/NAME.json` for every row whose runs have this file.

    Lines with the same words are one; what follows the words are estimates over the runs, and whole numbers where all
    runs have the same one. `runs` counts the runs that were asked.
    """
    answers = {row.key: [run.folder / ANALYSES / f"{name}.json" for run in row.finished] for row in rows}
    answers = {key: [path for path in paths if path.is_file()] for key, paths in answers.items()}
    read = {key: [_read(path) for path in paths] for key, paths in answers.items()}
    if not any(read.values()):
        known = {path.stem for row in rows for run in row.finished for path in (run.folder / ANALYSES).glob("*.json")}
        raise UsageError(f"no run has the answer {name}; there are: {', '.join(sorted(known)) or 'none'}.")
    for several in read.values():
        asked = {found["options"].get("texts") for found in several}
        if len(asked) > 1:
            numbers = ", ".join(map(str, sorted(asked, key=str)))
            raise UsageError(f"the answers {name} of seeds are of different numbers of texts (--texts {numbers}).")
    lines = [(row, line) for row in rows for line in _lines(read[row.key])]
    texts = [*dict.fromkeys(column for _, line in lines for column in line.texts)]
    measured = [*dict.fromkeys(column for _, line in lines for column in line.numbers)]
    body = []
    for row, line in lines:
        key = row.key
        own = (key.task, key.encoder, key.pooler, differing_options(row, rows), len(read[key]))
        words = (line.texts.get(column) for column in texts)
        body.append((*own, *words, *(_cell(line.numbers.get(column)) for column in measured)))
    header = ("task", "encoder", "pooler", "options", "runs", *texts, *measured)
    return Table(header, tuple(body), (*[0] * (len(header) - len(measured)), *[3] * len(measured)))


def _read(path: Path) -> dict[str, Any]:
    found = read_object(path)
    lines, options = found.get("table"), found.get("options")
    if not (isinstance(options, dict) and isinstance(lines, list) and all(isinstance(line, dict) for line in lines)):
        raise DataError(f"{path} is not the answer to an analysis: it must hold options and a table.")
    return found


def _lines(found: Sequence[dict[str, Any]]) -> list[_Line]:
    lines: dict[tuple[tuple[str, str], ...], _Line] = {}
    for line in (line for answer in found for line in answer["table"]):
        numbers = {name: x for name, x in line.items() if isinstance(x, int | float) and not isinstance(x, bool)}
        texts = {name: str(x) for name, x in line.items() if name not in numbers and x is not None}
        same = lines.setdefault(tuple(texts.items()), _Line(texts, {}))
        for name, x in numbers.items():
            same.numbers.setdefault(name, []).append(x)
    return [*lines.values()]


def _cell(values: list[float] | None) -> Cell:
    if values is None:
        return None
    return values[0] if isinstance(values[0], int) and len(set(values)) == 1 else estimate(values)
