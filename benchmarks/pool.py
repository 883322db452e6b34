"""Measure pooling: `python -m benchmarks.pool --help`.

Every row of a shape is compiled first. Then, round by round, every program runs once, in an order that changes; so a
disturbance of the machine meets all of them, and every ratio is taken between times of one round.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks import record, table, timing
from benchmarks.cli import Parser, UsageError, command, known
from benchmarks.programs import build
from benchmarks.rows import YARDSTICKS, Row, jax_rows
from benchmarks.shapes import DEFAULT_SHAPES, FILLS, SHAPES, P, Shape, draw
from benchmarks.torch_rows import MISSING, NOT_HERE, torch, torch_rows

PROGRAM = "benchmarks.pool"


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=f"python -m {PROGRAM}",
        description="Time pooling, forward and backward, in interleaved rounds, and print Markdown tables.",
    )
    names = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in SHAPES.items())
    parser.add_argument(
        "--shapes", nargs="+", default=DEFAULT_SHAPES, metavar="NAME", help=f"{names}; default: all but tiny"
    )
    parser.add_argument(
        "--fills", nargs="+", default=FILLS, metavar="FILL", help="dense, ragged (a quarter of the tokens is real)"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="rows by name (xla:linear) or by what stands before the colon (jax, xla, torch, ...); default: all. "
        "The yardsticks of the ratios always run",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds; default: 5 to 25, as fit into --seconds")
    parser.add_argument(
        "--seconds", type=float, default=10, metavar="S", help="for the rounds of one shape and fill; default: 10"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw times relative to attention pooling")
    return parser


def choose(rows: list[Row], names: list[str] | None) -> list[Row]:
    """Return the rows that were asked for, with the yardsticks."""
    if names is None:
        return rows
    families = {row.name: row.name.split(":")[0] for row in rows}
    for name in names:
        known("row", name, [*families, *dict.fromkeys(families.values())])
    return [row for row in rows if row.name in (*YARDSTICKS, *names) or families[row.name] in names]


def measure(shape: Shape, fill: str, rows: list[Row], rounds: int | None, seconds: float) -> dict[str, Any]:
    """Return what was measured of the rows at one shape and fill."""
    arrays = draw(shape, fill)
    if torch:
        torch.compiler.reset()
    rows = [row for row in rows if row.masks or arrays.mask is None]
    programs = [program for row in rows for program in build(row, arrays)]
    times = timing.measure(programs, timing.clock_of_this_machine(), rounds, seconds)
    cells: dict[str, dict[str, Any]] = {
        row.name: {"about": row.about, "skips_padding": row.skips_padding}
        | {"milliseconds": {}, "temporary": {}, "compilation": {}}
        for row in rows
    }
    for program, milliseconds in zip(programs, times, strict=True):
        cells[program.row]["milliseconds"][program.mode] = [round(time, 4) for time in milliseconds]
        cells[program.row]["temporary"][program.mode] = program.temporary
        cells[program.row]["compilation"][program.mode] = program.compilation
    real = 1.0 if arrays.mask is None else float(arrays.mask.mean())
    return {
        "size": list(shape),
        "bytes": shape.bytes,
        "heads": shape.heads,
        "fill": fill,
        "real": round(real, 4),
        "rounds": len(times[0]),
        "rows": cells,
    }


def run(arguments: list[str]) -> None:
    """Parse, measure, print, and write what was asked for."""
    options = parser().parse_args(arguments)
    on_cpu = timing.clock_of_this_machine() is timing.host_clock
    rows = choose(jax_rows() + (torch_rows() if on_cpu else []), options.rows)
    shapes = [known("shape", name, SHAPES) for name in options.shapes]
    fills = [known("fill", fill, FILLS) for fill in options.fills]
    if options.rounds is not None and options.rounds < 1:
        raise UsageError(f"--rounds must be 1 or more, got {options.rounds}")
    for path in filter(None, (options.out, options.plot)):
        if not path.parent.is_dir():
            raise UsageError(f"the folder of {path} does not exist")
    result: record.Record = {
        "command": " ".join(["python", "-m", PROGRAM, *_measured_options(arguments)]),
        **record.environment(),
        "exponent": P,
        "clock": "host" if on_cpu else "device trace",
        "notes": [] if torch and on_cpu else [NOT_HERE if torch else MISSING],
        "load": {"before": record.load_average()},
        "cells": [],
    }
    for name in shapes:
        for fill in fills:
            print(f"{PROGRAM}: {name}, {fill}", file=sys.stderr)
            cell = measure(SHAPES[name], fill, rows, options.rounds, options.seconds)
            result["cells"].append({"shape": name, **cell})
    result["load"]["after"] = record.load_average()
    print(table.whole(result))
    if options.out:
        record.write(options.out, result)
    if options.plot:
        from benchmarks import plot  # matplotlib, which nothing else needs

        plot.draw(options.plot, result)


def _measured_options(arguments: list[str]) -> list[str]:
    """Return the command line without the names of files."""
    kept, skip = [], False
    for argument in arguments:
        is_file = argument.split("=")[0] in ("--out", "--plot")
        if not (is_file or skip):
            kept.append(argument)
        skip = is_file and "=" not in argument
    return kept


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
