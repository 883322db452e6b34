"""A record as a figure: forward, and forward and backward, relative to attention pooling in the same rounds."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context, style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.programs import BOTH, FORWARD
from benchmarks.record import Record
from benchmarks.rows import AGAIN, ATTENTION
from benchmarks.table import Cell, ratio, title

STYLE = Path(__file__).parent.parent / "experiments" / "base" / "figures.mplstyle"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(path: Path, record: Record) -> None:
    """Write the figure, as wide as a page, and beside it as PDF; the dense batches only, if there are any."""
    cells = [cell for cell in record["cells"] if cell["fill"] == "dense"] or record["cells"]
    names = [name for name in cells[0]["rows"] if name != AGAIN]
    with rc_context():
        style.use(STYLE)
        figure = Figure(figsize=(6.9, min(1.4 + 0.17 * len(names), 9.0)))
        axes = figure.subplots(1, 2, sharey=True)
        for axis, mode in zip(axes, (FORWARD, BOTH), strict=True):
            _panel(axis, mode, cells, names)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(
            f"Pooling against attention pooling, {record['device']} ({record['processor']}), {record['cores']} cores"
        )
        figure.savefig(path, metadata={"Software": None})
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def _panel(axis: Any, mode: str, cells: list[Cell], names: list[str]) -> None:
    axis.axvline(1, color="grey", linewidth=1)
    for index, (cell, marker) in enumerate(zip(cells, _MARKERS, strict=False)):
        values = [ratio(cell, name, mode, ATTENTION) for name in names]
        height = 0.1 * (index - (len(cells) - 1) / 2)  # marks of equal times lie below one another
        points = [(value, row + height) for row, value in enumerate(values) if value is not None]
        axis.plot(*zip(*points, strict=True), linestyle="", marker=marker, label=title(cell))
    axis.set(xscale="log", xlabel="time / attention pooling (log scale; left is faster)", title=mode)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
