"""A record to Markdown: one table a shape and fill, what it was measured on, and what the columns mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.programs import BOTH, DONATED, FORWARD
from benchmarks.record import Record
from benchmarks.rows import AGAIN, ATTENTION, OURS, READ

Cell = dict[str, Any]

_HEADER = (
    "row",
    "forward ms",
    "/ read",
    "/ attention",
    "forward+backward ms",
    "donated ms",
    "/ read",
    "/ attention",
    "temporary",
    "skips padding",
)
SUMMARY = """\
Times over that of attention pooling, forward / forward and backward: below 1 is faster. Each is the median over the
rounds of the ratio within a round. `memory` is the most that a form needs beside arguments and results, over the
shapes, in per cent of the states; `compilation` the median over the shapes of the seconds to trace and compile a form
with its gradients."""
LEGEND = """\
Milliseconds are medians over the rounds, with [quartiles] and the least. `/ read` and `/ attention` are medians of the
ratios to the read floor and to attention pooling within a round. `donated` writes the gradient of the states where an
earlier call wrote it; all other results lie in fresh memory, whose pages the system has to clear first. `temporary` is
what the program needs beside arguments and results, in per cent of the states in float32, forward / forward+backward.
`skips padding` says whether a row leaves padding unread in a ragged batch."""


def times(cell: Cell, row: str, mode: str) -> np.ndarray | None:
    """Return the milliseconds of a row in the rounds; None where it was not measured."""
    found = cell["rows"].get(row, {}).get("milliseconds", {}).get(mode)
    return None if found is None else np.asarray(found)


def ratio(cell: Cell, row: str, mode: str, other: str, other_mode: str | None = None) -> float | None:
    """Return the median over the rounds of the ratio to another row; None where either was not measured."""
    top, bottom = times(cell, row, mode), times(cell, other, other_mode or mode)
    return None if top is None or bottom is None else float(np.median(top / bottom))


def noise(cell: Cell) -> str:
    """Return how far the two copies of one row lie apart, in words."""
    parts = []
    for mode in (FORWARD, BOTH):
        first, second = times(cell, OURS, mode), times(cell, AGAIN, mode)
        if first is not None and second is not None:
            apart = abs(np.median(second) / np.median(first) - 1)
            spread = np.percentile(second / first, (25, 75))
            parts.append(f"{mode} medians {apart:.0%} apart, ratio within a round {spread[0]:.2f} to {spread[1]:.2f}")
    return "; ".join(parts) or "not measured"


def summary(cells: Sequence[Cell]) -> str:
    """Return one table over several cells: a row a form, in words, and a column a cell."""
    header = ["form", *(f"{size(cell)}, {cell['fill']}" for cell in cells), "memory", "compilation"]
    lines = [_line(header), _line(["---"] * len(header))]
    about = {name: row["about"] for cell in cells for name, row in cell["rows"].items() if name != AGAIN}
    for name, words in about.items():
        pairs = [[ratio(cell, name, mode, ATTENTION) for mode in (FORWARD, BOTH)] for cell in cells]
        factors = [" / ".join(_factor(value) for value in pair if value is not None) for pair in pairs]
        lines.append(_line([words, *factors, _memory(cells, name), _compilation(cells, name)]))
    return "\n".join(lines)


def _memory(cells: Sequence[Cell], name: str) -> str:
    """Return the largest share of the states that a form needs besides, forward / forward and backward."""
    largest = []
    for mode in (FORWARD, BOTH):
        used = [(cell["rows"].get(name, {}).get("temporary", {}).get(mode), cell["bytes"]) for cell in cells]
        shares = [temporary / states for temporary, states in used if temporary is not None]
        largest += [f"{max(shares):.1%}"] if shares else []
    return " / ".join(largest)


def _compilation(cells: Sequence[Cell], name: str) -> str:
    """Return the median of the seconds that a form takes to compile, forward and backward, or all that it has."""
    found = [cell["rows"].get(name, {}).get("compilation", {}) for cell in cells]
    seconds = [modes.get(BOTH) or modes.get(FORWARD) for modes in found]
    seconds = [value for value in seconds if value is not None]
    return f"{np.median(seconds):.1f} s" if seconds else ""


def whole(record: Record) -> str:
    """Return everything that a run measured, and on what."""
    tables = (f"### {title(cell)}\n\n{about(cell)}\n\n{one(cell)}" for cell in record["cells"])
    return "\n\n".join([setting(record), LEGEND, *tables])


def setting(record: Record) -> str:
    """Return what ran where, as a list."""
    load = record["load"]
    lines = [
        f"`{record['command']}` on {record['date']}",
        f"{record['device']}; {record['processor']}, {record['cores']} cores, {record['system']}",
        ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "threads: " + ", ".join(f"{name} {number}" for name, number in record["threads"].items()),
        f"load average (1, 5, 15 minutes): {_numbers(load['before'])} before, {_numbers(load['after'])} after",
        f"clock: {record['clock']}; exponent {record['exponent']}; float32 but where a row says otherwise",
        *(f"{name}={value}" for name, value in record["variables"].items()),
        *record["notes"],
    ]
    return "\n".join(f"- {line}" for line in lines)


def title(cell: Cell) -> str:
    """Return the name of a shape, its size and its fill."""
    return f"{cell['shape']} {size(cell)}, {cell['fill']}"


def size(cell: Cell) -> str:
    """Return texts x tokens x features."""
    return "x".join(map(str, cell["size"]))


def about(cell: Cell) -> str:
    """Return what a shape holds, and the noise of its rounds."""
    real = "" if cell["fill"] == "dense" else f", {cell['real']:.0%} of the tokens are real"
    return (
        f"States of {cell['bytes'] / 1e6:.3g} MB{real}; {cell['rounds']} rounds; {cell['heads']} heads where p is per "
        f"head. Noise, one row measured twice: {noise(cell)}."
    )


def one(cell: Cell) -> str:
    """Return the table of one shape and fill."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    for name, row in cell["rows"].items():
        fresh = [times(cell, name, mode) for mode in (FORWARD, BOTH, DONATED)]
        read_forward, read_both = ratio(cell, name, FORWARD, READ), ratio(cell, name, BOTH, READ, FORWARD)
        attention_forward, attention_both = (ratio(cell, name, mode, ATTENTION) for mode in (FORWARD, BOTH))
        temporary = [_share(row["temporary"].get(mode), cell["bytes"]) for mode in (FORWARD, BOTH)]
        lines.append(
            _line(
                [
                    f"`{name}` {row['about']}",
                    _milliseconds(fresh[0]),
                    _factor(read_forward),
                    _factor(attention_forward),
                    _milliseconds(fresh[1]),
                    _milliseconds(fresh[2]),
                    _factor(read_both),
                    _factor(attention_both),
                    " / ".join(filter(None, temporary)),
                    "yes" if row["skips_padding"] else "no",
                ]
            )
        )
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) or "unknown"


def _milliseconds(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    first, median, third = np.percentile(values, (25, 50, 75))
    return f"{_short(median)} [{_short(first)}, {_short(third)}] {_short(values.min())}"


def _factor(value: float | None) -> str:
    return "" if value is None else _short(value)


def _short(value: float) -> str:
    """Return three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _share(value: int | None, whole: int) -> str:
    return "" if value is None else f"{value / whole:.1%}"
