"""What the project promises on two CPU cores, against a measurement: `python -m benchmarks.targets FILE.json`.

Prints; never fails: a time is no test.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import record
from benchmarks.cli import Parser, command
from benchmarks.programs import BOTH, FORWARD
from benchmarks.rows import ATTENTION, OURS
from benchmarks.table import Cell, ratio

PROGRAM = "benchmarks.targets"
NAIVE = "jax:naive"

# Shape, mode, row, and the most that our time may be of its time.
_LIMITS = (
    ("long", FORWARD, ATTENTION, 2.5),
    ("long", BOTH, ATTENTION, 1.0),
    ("small", FORWARD, ATTENTION, 2.0),
    ("small", BOTH, ATTENTION, 0.8),
    ("long", BOTH, NAIVE, 1 / 5),
    ("small", BOTH, NAIVE, 1 / 5),
)


def lines(result: record.Record) -> list[str]:
    """Return one Markdown line a promise, with the ratio of medians of the same rounds."""
    cells = {cell["shape"]: cell for cell in result["cells"] if cell["fill"] == "dense"}
    limits = [*_LIMITS, *_against_torch(cells)]
    rows = [_line(cells.get(shape), shape, mode, row, limit) for shape, mode, row, limit in limits]
    header = f"| shape, dense | mode | `{OURS}` over | at most | measured | |"
    return [header, "| --- | --- | --- | --- | --- | --- |", *rows]


def _against_torch(cells: dict[str, Cell]) -> Iterator[tuple[str, str, str, float]]:
    for shape in ("long", "small"):
        rows = cells[shape]["rows"] if shape in cells else ()
        for row in [name for name in rows if name.startswith("torch:")] or ["torch"]:
            for mode in (FORWARD, BOTH):
                yield shape, mode, row, 1.0


def _line(cell: Cell | None, shape: str, mode: str, row: str, limit: float) -> str:
    value = ratio(cell, OURS, mode, row) if cell else None
    verdict = "open" if value is None else "pass" if value <= limit else "FAIL"
    measured = "not measured" if value is None else f"{value:.2f}"
    return f"| {shape} | {mode} | `{row}` | {limit:.1f} | {measured} | {verdict} |"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        parser = Parser(prog=f"python -m {PROGRAM}", description="Compare a measurement with the promised ratios.")
        parser.add_argument("file", type=Path, metavar="FILE.json", help="what benchmarks.pool wrote with --out")
        print("\n".join(lines(record.read(parser.parse_args(arguments).file))))

    return command(PROGRAM, body, arguments)


if __name__ == "__main__":
    sys.exit(main())
