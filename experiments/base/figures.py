"""What all figures share: one style, sizes of print, how series are told apart, and the files that are written.

The style is `figures.mplstyle`. Every series has a colour, a marker and a line of its own, and each is drawn thinner
than those before it, so that a line which lies on another one hides none of them.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

STYLE: dict[Any, Any] = dict(rc_params_from_file(Path(__file__).with_suffix(".mplstyle"), use_default_template=False))
in_style = rc_context(STYLE)
"""Decorates what draws: Matplotlib asks for sizes when a thing is made, and for some when it is drawn."""
COLOURS: list[str] = [f"#{colour.lstrip('#')}" for colour in STYLE["axes.prop_cycle"].by_key()["color"]]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
COLUMN, WIDTH, HEIGHT = 3.35, 6.9, 9.0
"""In inches: the width of a column, and the width and height of the text of a page."""
VECTOR = ".pdf"
_LEGEND_LINE = 0.17


@in_style
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG to `path` and as PDF beside it; the same figure gives the same bytes."""
    figure.savefig(path, metadata={"Software": None})
    figure.set_layout_engine("none")  # it is laid out by now
    figure.savefig(path.with_suffix(VECTOR), metadata={"CreationDate": None})


def panels(
    count: int, height: float, *, legend: Sequence[str] = (), across: int | None = None, width: float = 0
) -> tuple[Figure, list[Axes]]:
    """Return a figure no larger than a page with panels of this height, or of less where there are too many.

    One panel is as wide as a column, or `width`; several share the width of the page. `legend` is what will stand
    below them.
    """
    across = across or (2 if count in (2, 4) else 4 if count > 15 else 3)
    across = min(count, across)
    down = math.ceil(count / across)
    wide = width or (COLUMN if across == 1 else WIDTH)
    below = _LEGEND_LINE * (math.ceil(len(legend) / columns(legend, wide)) + 1) if legend else 0
    figure = Figure(figsize=(wide, min(height * down + below, HEIGHT)))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    for axis in axes[:count]:
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure, [*axes[:count]]


def columns(labels: Iterable[str], width: float) -> int:
    """Return how many of the labels of a legend fit beside each other into so many inches."""
    return max(1, int(width / (0.055 * max(map(len, labels)) + 0.45)))


def legend_below(figure: Figure, axes: Sequence[Axes], order: Sequence[str]) -> None:
    """One legend below all panels, every label once, in the given order."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = [label for label in order if label in handles]
    beside = columns(labels, figure.get_figwidth())
    figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=beside)


def series(index: int, count: int) -> dict[str, Any]:
    """Return how the series of this index, of so many, is drawn."""
    later = (count - 1 - index) / max(count - 1, 1)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
        "linewidth": 0.8 + later,
        "markersize": 3 + 2 * later,
        "clip_on": False,  # a mark at the end of an axis is seen whole
    }


def within(axis: Axes, lowest: float, highest: float, which: str = "x") -> None:
    """End an axis at the ends of what is possible: no rate is below 0 % or above 100 %."""
    low, high = getattr(axis, f"get_{which}lim")()
    getattr(axis, f"set_{which}lim")(max(low, lowest), min(high, highest))


def log_axis(axis: Axes, which: str = "x", values: Sequence[float] = ()) -> None:
    """Draw an axis in logarithms, with a tick at every value that leaves room for the text of the one before.

    Without values the ticks are at round numbers.
    """
    ticks: list[float] = []
    for value in sorted(values):
        if not ticks or value > 1.4 * ticks[-1]:
            ticks.append(value)
    getattr(axis, f"set_{which}scale")("log")
    side = getattr(axis, f"{which}axis")
    side.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    side.set_minor_locator(NullLocator())
    side.set_major_formatter(StrMethodFormatter("{x:g}"))
