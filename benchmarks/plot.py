"""A record as a figure: forward, and forward and backward, relative to attention pooling in the same rounds."""

from pathlib import Path
from typing import Any

from benchmarks.programs import BOTH, FORWARD
from benchmarks.record import Record
from benchmarks.rows import AGAIN, ATTENTION
from benchmarks.table import Cell, ratio

# The colours of Okabe and Ito, which colour-blind readers tell apart; every shape has a marker of its own too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(path: Path, record: Record) -> None:
    """Write the figure; the dense batches only, if there are any."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = [cell for cell in record["cells"] if cell["fill"] == "dense"] or record["cells"]
    names = [name for name in cells[0]["rows"] if name != AGAIN]
    height = 1.6 + 0.27 * len(names)
    figure, axes = plt.subplots(1, 2, figsize=(12, height), sharey=True, constrained_layout=True)
    for axis, mode in zip(axes, (FORWARD, BOTH), strict=True):
        _panel(axis, mode, cells, names)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("row")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(
        f"Pooling against attention pooling, {record['device']} ({record['processor']}), {record['cores']} cores"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, mode: str, cells: list[Cell], names: list[str]) -> None:
    from matplotlib.ticker import LogLocator

    axis.axvline(1, color="grey", linewidth=1)
    for cell, colour, marker in zip(cells, _COLOURS, _MARKERS, strict=False):
        values = [ratio(cell, name, mode, ATTENTION) for name in names]
        points = [(value, row) for row, value in enumerate(values) if value is not None]
        batch, tokens, features = cell["size"]
        axis.plot(
            *zip(*points, strict=True),
            linestyle="",
            marker=marker,
            markersize=6,
            color=colour,
            label=f"{cell['shape']} {batch}x{tokens}x{features}, {cell['fill']}",
        )
    axis.set(xscale="log", xlabel="time / attention pooling (log scale; left is faster)", title=mode)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.grid(alpha=0.3)
