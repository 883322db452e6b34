"""Does a learned exponent say which of max and mean is the better pooling? A mark a place and learned norm."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize, stats

from experiments.base.figures import COLUMN, WIDTH, in_style, legend_below, log_axis, panels, series
from experiments.reporting.labels import in_words, method, parts
from experiments.reporting.records import LEARNED_NORMS, Row, differing
from experiments.reporting.statistics import plain

FEWEST = 3
"""Places: fewer show no tendency."""
HEIGHT, LETTER, LINE = 2.3, 0.06, 0.115
"""Inches: the height of the panel, the width of a letter of a label and the height of its line."""

Place = tuple[str, ...]


def points(rows: Sequence[Row]) -> dict[str, dict[Place, tuple[float, float]]]:
    """Return, for each learned norm and each place where max and mean ran too, their difference and the learned p.

    The difference is that of the mean test scores, max minus mean, as it is shown. Learned norms with fewer than three
    such places are left out, and so are exponents that are not positive.
    """
    rows = [row for row in rows if row.finished]
    largest, mean = plain(rows, "max"), plain(rows, "mean")
    found: dict[str, dict[Place, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        place = row.key.place
        exponents = [float(run.p.mean()) for run in row.finished if run.p is not None and run.trains_p]
        if row.key.pooler in LEARNED_NORMS and exponents and place in largest and place in mean:
            p = float(np.mean(exponents))
            scores = [np.mean([*other[place].scores().values()]) for other in (largest, mean)]
            if p > 0:
                found[method(row)][place] = float(row.key.measure.scale * (scores[0] - scores[1])), p
    return {name: own for name, own in found.items() if len(own) >= FEWEST}


@in_style
def draw(rows: Sequence[Row]) -> Figure | None:
    """Draw the learned exponent against what max is ahead of mean by."""
    found = points(rows)
    if not found:
        return None
    x = {place: gain for own in found.values() for place, (gain, _) in own.items()}
    labels = _labels([*x])
    called = {name: _called(name, own) for name, own in found.items()}
    width = COLUMN if LINE * len(x) < 0.75 * COLUMN else WIDTH
    height = HEIGHT + LETTER * max(map(len, labels.values()))
    figure, (axis,) = panels(1, height, legend=[*called.values()], width=width)
    for index, (name, own) in enumerate(found.items()):
        style = series(index, len(found)) | {"linestyle": ""}
        axis.plot(*zip(*own.values(), strict=True), label=called[name], zorder=3, **style)
    axis.axvline(0, color="black", linewidth=0.8)
    log_axis(axis, "y")
    axis.grid(visible=False, axis="x")
    measure = rows[0].key.measure
    unit = " (points)" if measure.is_share else ""
    axis.set(xlabel=f"test {measure.label} of max minus that of mean{unit}", ylabel="learned p (log scale)")
    _label_above(axis, {labels[place]: gain for place, gain in sorted(x.items(), key=lambda item: item[1])}, width)
    legend_below(figure, [axis], [*called.values()])
    return figure


def _called(name: str, own: Mapping[Place, tuple[float, float]]) -> str:
    """Return the name of a learned norm, with the rank correlation where neither side is constant."""
    gains, exponents = zip(*own.values(), strict=True)
    count = f"n = {len(own)}"
    if min(len(set(gains)), len(set(exponents))) < 2:
        return f"{name}: {count}"
    return f"{name}: rho = {stats.spearmanr(gains, exponents).statistic:.2f}, {count}"


def _labels(places: Sequence[Any]) -> dict[Place, str]:
    """Return a label a place: the task, and what tells it from other places."""
    encoders = {place[1] for place in places}
    labels = {}
    for place in places:
        task, encoder, setting, _ = place
        beside = [other[2] for other in places if other[:2] == (task, encoder)]
        options = in_words(parts(differing(setting, beside))) if len(beside) > 1 else ""
        labels[place] = ", ".join(filter(None, [task, encoder if len(encoders) > 1 else "", options]))
    return labels


def _label_above(axis: Axes, labels: Mapping[str, float], width: float) -> None:
    """Put labels above a panel, each as near to its place, in ascending order, as the one beside it allows."""
    low, high = axis.get_xlim()
    wanted = (np.array([*labels.values()]) - low) / (high - low)
    steps = LINE / (0.8 * width) * np.arange(len(labels))
    slots = np.clip(optimize.isotonic_regression(wanted - steps).x, 0, max(0, 1 - steps[-1])) + steps
    for (label, x), slot in zip(labels.items(), slots, strict=True):
        axis.axvline(x, color="0.8", linewidth=0.5, zorder=0)
        line: dict[str, Any] = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
        axis.annotate(
            label,
            (x, 1),
            (slot, 1.12),
            xycoords=("data", "axes fraction"),
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6.5,
            arrowprops=line | {"relpos": (0.5, 0)},
        )
    axis.set_xlim(low, high)
