"""Figures of runs: one function a figure, None where the runs have nothing to show in it.

Colours are those of Okabe and Ito, which colour-blind readers tell apart, and every series has a marker or a line style
of its own. Sizes are for a page at half width: text stays legible there.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from experiments.reporting.measures import Measure
from experiments.reporting.needles import best_and_learned
from experiments.reporting.records import Row, Run, differing, natural
from experiments.reporting.statistics import estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ACROSS = 2  # more panels side by side cannot be read at half the width of a page
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes."""
    with rc_context(STYLE):
        figure.savefig(path, dpi=110, metadata={"Software": None})


def _panels(count: int, width: float, height: float, beside: float = 0) -> tuple[Figure, list[Axes]]:
    across = min(count, ACROSS)
    down = math.ceil(count / across)
    with rc_context(STYLE):
        figure = Figure(figsize=(max(width * across, 5) + beside, height * down))
        axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, [*axes[:count]]


def _by(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _task(row: Row) -> str:
    return row.key.task


def scores(rows: Sequence[Row]) -> Figure | None:
    """The test score of every pooling, a panel a task, a marker an encoder, bars over 95 % intervals."""
    tasks = _by([row for row in rows if row.finished], _task)
    encoders = sorted({row.key.encoder for row in rows})
    methods = sorted({row.key.method for row in rows}, key=natural, reverse=True)
    if len(methods) < 2:
        return None
    measure = rows[0].key.measure
    figure, axes = _panels(len(tasks), 3.2, 1.5 + 0.42 * len(methods), beside=0.11 * max(map(len, methods)))
    for axis, (task, group) in zip(axes, tasks.items(), strict=True):
        for row in group:
            index = encoders.index(row.key.encoder)
            place = methods.index(row.key.method) + 0.22 * (index - (len(encoders) - 1) / 2)
            mean, half, _ = estimate([measure.scale * run.score for run in row.finished])
            style: dict[str, Any] = {
                "color": COLOURS[index % 7],
                "marker": MARKERS[index % 7],
                "markersize": 6,
                "linestyle": "",
            }
            axis.errorbar(mean, place, xerr=half, capsize=2, label=row.key.encoder, **style)
        axis.set(title=task, xlabel=measure.axis, yticks=range(len(methods)), yticklabels=methods)
        axis.set_ylim(-0.6, len(methods) - 0.4)
        if axes.index(axis) % ACROSS:  # the names stand at the left panel
            axis.set_yticklabels([])
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below all panels, every label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = sorted(handles, key=natural)
    columns = 2 if max(map(len, labels)) < 20 else 1
    with rc_context(STYLE):
        figure.legend([handles[x] for x in labels], labels, loc="outside lower center", ncols=columns, fontsize=11)


def exponent_over_training(rows: Sequence[Row]) -> Figure | None:
    """The learned p at every validation, a panel a task: a line a run, and a line a head where each has its own."""
    rows = [row for row in rows if any(run.trains_p and run.validations for run in row.finished)]
    if not rows:
        return None
    names = sorted({f"{row.key.encoder}, {row.key.method}" for row in rows}, key=natural)
    data = _by(rows, lambda row: (row.key.task, _data(row)))
    figure, axes = _panels(len(data), 3.7, 3.3)
    for axis, ((task, about), group) in zip(axes, data.items(), strict=True):
        for row in group:
            name = f"{row.key.encoder}, {row.key.method}"
            index = names.index(name)
            style: dict[str, Any] = {"color": COLOURS[index % 7], "linestyle": ("-", "--", "-.", ":")[index // 7 % 4]}
            for run in row.finished:
                epochs = [record["epoch"] for record in run.validations]
                path = np.array([np.ravel(record["p"]) for record in run.validations])
                if path.shape[1] > 16:  # one p a feature: their middle and the range of half of them
                    axis.fill_between(epochs, *np.quantile(path, [0.25, 0.75], axis=1), alpha=0.2, color=style["color"])
                    path = np.median(path, axis=1, keepdims=True)
                for line in path.T:
                    axis.plot(epochs, line, label=name, linewidth=1.3, marker=MARKERS[index % 7], markersize=3, **style)
        others = [other for name, other in data if name == task]
        axis.set_title(task + f"\n{differing(about, others)}" * (len(others) > 1), fontsize=12)
        axis.set(xlabel="epoch", ylabel="exponent p")
    _legend(figure, axes)
    return figure


def fixed_against_learned(rows: Sequence[Row]) -> Figure | None:
    """The test score against the fixed exponent, the learned exponent marked, a panel a task, encoder and setting."""
    rows = [row for row in rows if row.finished and row.finished[0].p is not None]
    curves = {key: group for key, group in _by(rows, _curve).items() if len(_fixed(group)) > 2}
    if not curves:
        return None
    names = list(dict.fromkeys(name for _, name in curves))
    places = _by([*curves], lambda key: key[0])
    measure = rows[0].key.measure
    figure, axes = _panels(len(places), 3.7, 3.3)
    for axis, (place, keys) in zip(axes, places.items(), strict=True):
        for key in keys:
            fixed, name = _fixed(curves[key]), f" of {key[1]}" if len(names) > 1 else ""
            colour, other = (COLOURS[(2 * names.index(key[1]) + n) % 7] for n in (0, 1))
            marks = [estimate([measure.scale * run.score for run in row.finished]) for row in fixed]
            style: dict[str, Any] = {"marker": "o", "color": colour, "label": f"fixed p{name}"}
            bars = [mark.half or 0 for mark in marks]
            axis.errorbar([_p(row) for row in fixed], [m.mean for m in marks], bars, capsize=2, **style)
            style = {"marker": "*", "markersize": 11, "linestyle": "", "color": other}
            for run in (run for row in curves[key] for run in row.finished if run.trains_p):
                p = np.mean(run.facts["p"])
                axis.plot(p, measure.scale * run.score, label=f"learned p{name}, a seed each", **style)
        _log_axis(axis, [_p(row) for key in keys for row in _fixed(curves[key])])
        task, encoder, setting, _ = place
        others = [other for other in places if other[:2] == (task, encoder)]
        title = f"{task}, {encoder}" + f"\n{differing(setting, [other[2] for other in others])}" * (len(others) > 1)
        axis.set_title(title, fontsize=12)
        axis.set(xlabel="exponent p (log scale)", ylabel=measure.axis)
    _legend(figure, axes)
    return figure


def _curve(row: Row) -> tuple[tuple[str, str, str, str], str]:
    """What the rows of one curve share: the place, and the pooler with all options but the exponent's."""
    options = [part for part in row.key.pool.split(", ") if not part.startswith(("pool.p_init=", "pool.exponent="))]
    return row.key.place, row.key._replace(pool=", ".join(options)).method


def _data(row: Row) -> str:
    return ", ".join(part for part in row.key.setting.split(", ") if part.startswith("data."))


def _fixed(group: Sequence[Row]) -> list[Row]:
    return sorted((row for row in group if not row.finished[0].trains_p), key=_p)


def _p(row: Row) -> float:
    return float(np.mean(row.finished[0].facts["p"]))


def _log_axis(axis: Axes, values: Sequence[float], which: str = "x") -> None:
    """Draw an axis in logarithms, with a tick at every value that leaves room for the text of the one before."""
    ticks: list[float] = []
    for value in sorted(values):
        if not ticks or value > 1.4 * ticks[-1]:
            ticks.append(value)
    getattr(axis, f"set_{which}scale")("log")
    side = getattr(axis, f"{which}axis")
    side.set_major_locator(FixedLocator(ticks))
    side.set_minor_locator(NullLocator())
    side.set_major_formatter(StrMethodFormatter("{x:g}"))


def needles(rows: Sequence[Row]) -> Figure | None:
    """The best fixed p and the learned p against the number of signal words in a text."""
    lines = best_and_learned(rows)
    if len(lines) < 2:
        return None
    figure, (axis,) = _panels(1, 5.6, 3.8)
    k = [line.signals for line in lines]
    best = np.array([line.best for line in lines])
    axis.fill_between(k, 0.75 * best, 1.25 * best, color=COLOURS[0], alpha=0.15, label="within 25 % of it")
    axis.plot(k, best, marker="o", color=COLOURS[0], label="best fixed p")
    halves = [line.learned.half or 0 for line in lines]
    style: dict[str, Any] = {"marker": "s", "color": COLOURS[1], "linestyle": "--", "capsize": 3}
    axis.errorbar(k, [line.learned.mean for line in lines], halves, label="learned p, mean and 95 % interval", **style)
    _log_axis(axis, k)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 3, 4, 6, 8, 12, 16]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set(xlabel="k, signal words in a text (log scale)", ylabel="exponent p (log scale)")
    axis.legend(fontsize=11)
    return figure


def hardness(rows: Sequence[Row]) -> Figure | None:
    """The entropy of the attention at every validation, a panel a task and encoder, a line a pooling."""
    rows = [row for row in rows if any(_entropies(run) for run in row.finished)]
    if not rows:
        return None
    methods = sorted({row.key.method for row in rows}, key=natural)
    groups = _by(rows, lambda row: (row.key.task, row.key.encoder))
    figure, axes = _panels(len(groups), 3.7, 3.3)
    for axis, ((task, encoder), group) in zip(axes, groups.items(), strict=True):
        for row in group:
            index = methods.index(row.key.method)
            style: dict[str, Any] = {"color": COLOURS[index % 7], "marker": MARKERS[index % 7], "markersize": 4}
            style["linestyle"] = ("-", "--", "-.", ":")[index // 7 % 4]
            runs = [_entropies(run) for run in row.finished if _entropies(run)]
            shared = min(map(len, runs))
            path = np.mean([[entropy for _, entropy in run[:shared]] for run in runs], axis=0)
            axis.plot([epoch for epoch, _ in runs[0][:shared]], path, label=row.key.method, **style)
        axis.set(title=f"{task}, {encoder}", xlabel="epoch", ylabel="attention entropy (nats)")
    _legend(figure, axes)
    return figure


def _entropies(run: Run) -> list[tuple[float, float]]:
    found = [(record["epoch"], record.get("attention_entropy")) for record in run.validations]
    return [(epoch, float(np.mean(entropy))) for epoch, entropy in found if entropy is not None]


SCORES = "scores"


def figures(measure: Measure) -> dict[str, tuple[str, str, Callable[[Sequence[Row]], Figure | None]]]:
    """Return all figures by kind: the name of the file, the caption, and what draws runs of one objective."""
    return {
        SCORES: (
            measure.name,
            f"Test {measure.label} of every pooling; bars are 95 % intervals over seeds",
            scores,
        ),
        "exponent": (
            "exponent",
            "The learned exponent over training; a line is a run, or a head of a run",
            exponent_over_training,
        ),
        "fixed": (
            "fixed",
            f"{measure.title} against the fixed exponent; bars are 95 % intervals over seeds",
            fixed_against_learned,
        ),
        "needles": (
            "needles",
            "The best fixed exponent and the learned one against the number of signal words",
            needles,
        ),
        "hardness": ("hardness", "Entropy of the attention over training, mean over seeds: low is hard", hardness),
    }
