"""What the project promises on two CPU cores, against a measurement: `python -m benchmarks.targets FILE.json`.

Prints; never fails: a time is no test.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import record
from benchmarks.cli import Parser, command
from benchmarks.programs import BOTH, FORWARD
from benchmarks.rows import ATTENTION, OURS
from benchmarks.table import Cell, ratio, size

PROGRAM = "benchmarks.targets"
SHAPES = ("small", "long")
_EQUAL = (1.0, 1.0)


class Mark(NamedTuple):
    """The most that a form may take of the time of another, forward, and forward and backward."""

    form: str
    other: str
    small: tuple[float, float]
    long: tuple[float, float]
    fill: str = "dense"


MARKS = (
    Mark(OURS, ATTENTION, (2.0, 0.8), (1.5, 0.75)),
    Mark("xla:log", ATTENTION, (3.5, 1.5), (3.0, 1.2)),
    Mark("xla:exp", ATTENTION, (3.5, 1.5), (3.0, 1.2)),
    Mark("xla:linear", ATTENTION, (4.5, 2.2), (4.0, 1.8)),
    Mark("xla:tanh", ATTENTION, (3.0, 1.6), (2.5, 1.25)),
    Mark("xla:head", ATTENTION, (2.6, 1.1), (2.0, 1.0)),
    Mark("xla:head", OURS, (1.3, 1.3), (1.3, 1.3)),
    Mark("xla:packed", OURS, _EQUAL, _EQUAL, "ragged"),
    # PyTorch, by the form that does the same job
    Mark("xla:log", "torch:logsumexp", _EQUAL, _EQUAL),
    Mark("xla:log", "torch:logsumexp-compiled", _EQUAL, _EQUAL),
    Mark("xla:linear", "torch:gem", _EQUAL, _EQUAL),
    Mark("xla:linear", "torch:gem-compiled", _EQUAL, _EQUAL),
    Mark("xla:linear", "torch:simpool", _EQUAL, _EQUAL),
    Mark("xla:linear", "torch:power-mean", _EQUAL, _EQUAL),
)


def lines(result: record.Record) -> list[str]:
    """Return a Markdown table, a line a promise: the median of the ratios within a round, bold above the mark."""
    cells = {(cell["shape"], cell["fill"]): cell for cell in result["cells"]}
    sizes = {shape: size(cells[shape, "dense"]) for shape in SHAPES if (shape, "dense") in cells}
    names = [f"{shape} {sizes.get(shape, '')}".rstrip() for shape in SHAPES]
    header = ["time of", "over that of", *(f"{name}, {mode}" for name in names for mode in (FORWARD, BOTH))]
    rows = [[f"`{mark.form}`", _other(mark), *_measured(mark, cells)] for mark in MARKS]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _other(mark: Mark) -> str:
    return f"`{mark.other}`" + ("" if mark.fill == "dense" else f", {mark.fill}")


def _measured(mark: Mark, cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    for shape, limits in zip(SHAPES, (mark.small, mark.long), strict=True):
        cell = cells.get((shape, mark.fill))
        for mode, limit in zip((FORWARD, BOTH), limits, strict=True):
            value = ratio(cell, mark.form, mode, mark.other) if cell else None
            if value is None:
                yield f"not measured (at most {limit:g})"
            else:
                yield f"{value:.2f} (at most {limit:g})" if value <= limit else f"**{value:.2f}** (at most {limit:g})"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        parser = Parser(prog=f"python -m {PROGRAM}", description="Compare a measurement with the promised ratios.")
        parser.add_argument("file", type=Path, metavar="FILE.json", help="what benchmarks.pool wrote with --out")
        print("\n".join(lines(record.read(parser.parse_args(arguments).file))))

    return command(PROGRAM, body, arguments)


if __name__ == "__main__":
    sys.exit(main())
