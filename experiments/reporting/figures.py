"""Figures of runs: one function a figure, None where the runs have nothing to show in it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.base.figures import (
    COLOURS,
    COLUMN,
    MARKERS,
    WIDTH,
    in_style,
    legend_below,
    log_axis,
    panels,
    series,
    within,
)
from experiments.reporting import max_or_mean
from experiments.reporting.labels import in_words, names, parts, task_and_encoder, without_exponent
from experiments.reporting.measures import Measure
from experiments.reporting.needles import best_and_learned
from experiments.reporting.records import Row, Run, differing, natural
from experiments.reporting.statistics import estimate
from experiments.run.plot import draw_exponent

SQUARE = 1.9
"""Inches: the height of a panel with curves."""
LONGEST_LABEL = 40
"""Characters: a longer label beside an axis is broken into lines."""


def _by(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _task(row: Row) -> str:
    return row.key.task


def bar(values: Sequence[float], measure: Measure) -> tuple[float, tuple[float, float]]:
    """Return the mean of values as it is shown, and how far its 95 % interval reaches to both sides.

    The interval of a share ends at 0 % and at 100 %.
    """
    mean, half, _ = estimate([measure.scale * value for value in values])
    below = above = half or 0.0
    if measure.is_share:
        below, above = min(below, mean), min(above, 100 - mean)
    return mean, (below, above)


@in_style
def scores(rows: Sequence[Row]) -> Figure | None:
    """The test score of every pooling, a panel a task, a marker an encoder, bars over 95 % intervals."""
    called = names(rows)
    tasks = _by([row for row in rows if row.finished], _task)
    encoders = sorted({row.key.encoder for row in rows})
    methods = sorted(set(called.values()), key=natural, reverse=True)
    if len(methods) < 2:
        return None
    measure = rows[0].key.measure
    labels = [fill(method, LONGEST_LABEL) for method in methods]
    lines = 1 + max(label.count("\n") for label in labels)
    height = 0.55 + len(methods) * max(0.1 + 0.09 * len(encoders), 0.15 * lines)
    width = COLUMN if max(map(len, methods)) < 24 else WIDTH * 0.75
    figure, axes = panels(len(tasks), height, legend=encoders, across=2, width=width if len(tasks) == 1 else WIDTH)
    for index, (axis, (task, group)) in enumerate(zip(axes, tasks.items(), strict=True)):
        for row in group:
            encoder = encoders.index(row.key.encoder)
            place = methods.index(called[row.key]) + 0.22 * (encoder - (len(encoders) - 1) / 2)
            mean, sides = bar([run.score for run in row.finished], measure)
            style = series(encoder, len(encoders)) | {"linestyle": "", "markersize": 4, "elinewidth": 1}
            axis.errorbar(mean, place, xerr=np.array(sides)[:, None], label=row.key.encoder, **style)
        axis.set(title=task, xlabel=measure.axis, yticks=range(len(methods)), yticklabels=labels)
        axis.set_ylim(-0.6, len(methods) - 0.4)
        if measure.is_share:
            within(axis, 0, 100)
        if index % 2:  # the names stand at the left panel
            axis.set_yticklabels([])
    legend_below(figure, axes, encoders)
    return figure


@in_style
def exponent_over_training(rows: Sequence[Row]) -> Figure | None:
    """The learned p at every validation, a panel a task: a line a run, and a line a head where each has its own."""
    rows = [row for row in rows if any(run.trains_p and run.validations for run in row.finished)]
    if not rows:
        return None
    data = _by(rows, lambda row: (row.key.task, _data(row)))
    bare = names(rows, lambda row: (*task_and_encoder(row), _data(row)))
    called = {row.key: f"{row.key.encoder}, {bare[row.key]}" for row in rows}
    order = sorted(set(called.values()), key=natural)
    figure, axes = panels(len(data), SQUARE, legend=order)
    for axis, ((task, about), group) in zip(axes, data.items(), strict=True):
        for row in group:
            style = series(order.index(called[row.key]), len(order))
            for run in row.finished:
                epochs = [record["epoch"] for record in run.validations]
                values = [record["p"] for record in run.validations]
                draw_exponent(axis, epochs, values, label=called[row.key], **style)
        axis.set(title=_title(task, about, [other for name, other in data if name == task]))
        axis.set(xlabel="epoch", ylabel="exponent p")
    legend_below(figure, axes, order)
    return figure


def _data(row: Row) -> str:
    return ", ".join(part for part in row.key.setting.split(", ") if part.startswith("data."))


def _title(place: str, options: str, others: Sequence[str]) -> str:
    """Return the name of a panel, with the options that tell it from others of its place."""
    return f"{place}\n{in_words(parts(differing(options, others)))}" if len(others) > 1 else place


@in_style
def fixed_against_learned(rows: Sequence[Row]) -> Figure | None:
    """The test score against the fixed exponent, the learned exponent marked, a panel a task, encoder and setting."""
    rows = [row for row in rows if row.finished and row.finished[0].p is not None]
    curves = {key: group for key, group in _by(rows, _curve).items() if len(_fixed(group)) > 2}
    if not curves:
        return None
    kinds = list(dict.fromkeys(name for _, name in curves))
    places = _by([*curves], lambda key: key[0])
    measure = rows[0].key.measure
    order = [label for name in kinds for label in _fixed_and_learned(name, kinds)]
    figure, axes = panels(len(places), SQUARE, legend=order)
    for axis, (place, keys) in zip(axes, places.items(), strict=True):
        for key in keys:
            fixed, learned = _fixed_and_learned(key[1], kinds)
            marks = [bar([run.score for run in row.finished], measure) for row in _fixed(curves[key])]
            style = series(order.index(fixed), len(order))
            bars = np.array([sides for _, sides in marks]).T
            p = [_p(row) for row in _fixed(curves[key])]
            axis.errorbar(p, [mean for mean, _ in marks], bars, label=fixed, elinewidth=0.8, **style)
            style = series(order.index(learned), len(order)) | {"marker": "*", "linestyle": ""}
            style["markersize"] *= 1.6
            for run in (run for row in curves[key] for run in row.finished if run.trains_p):
                axis.plot(np.mean(run.facts["p"]), measure.scale * run.score, label=learned, **style)
        log_axis(axis, "x", [_p(row) for key in keys for row in _fixed(curves[key])])
        task, encoder, setting, _ = place
        axis.set(title=_title(f"{task}, {encoder}", setting, [x[2] for x in places if x[:2] == (task, encoder)]))
        axis.set(xlabel="exponent p (log scale)", ylabel=measure.axis)
        if measure.is_share:
            within(axis, 0, 100, "y")
    legend_below(figure, axes, order)
    return figure


def _fixed_and_learned(name: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Return what the curve and the marks of one kind of pooler are called."""
    of = f" of {name}" if len(kinds) > 1 else ""
    return f"fixed p{of}", f"learned p{of}, a seed each"


def _curve(row: Row) -> tuple[tuple[str, str, str, str], str]:
    """What the rows of one curve share: the place, and the pooler with all options but the exponent's."""
    options = in_words(without_exponent(parts(row.key.pool)))
    return row.key.place, ", ".join(filter(None, [row.key.pooler.replace("_", " "), options]))


def _fixed(group: Sequence[Row]) -> list[Row]:
    return sorted((row for row in group if not row.finished[0].trains_p), key=_p)


def _p(row: Row) -> float:
    return float(np.mean(row.finished[0].facts["p"]))


@in_style
def needles(rows: Sequence[Row]) -> Figure | None:
    """The best fixed p and the learned p against the number of signal words in a text, a panel a learned norm."""
    lines = best_and_learned(rows)
    ways = list(dict.fromkeys(line.way for line in lines))
    labels = ["best fixed p", "within 25 % of it", *map(_from, ways)]
    if len({line.signals for line in lines}) < 2:
        return None
    poolers = _by(lines, lambda line: line.pooler)
    figure, axes = panels(len(poolers), SQUARE, legend=labels)
    for axis, (pooler, ours) in zip(axes, poolers.items(), strict=True):
        fixed = {line.signals: line.best for line in ours}
        k, best = [*fixed], np.array([*fixed.values()])
        axis.fill_between(k, 0.75 * best, 1.25 * best, color=COLOURS[0], alpha=0.15, label="within 25 % of it")
        axis.plot(k, best, marker="o", color=COLOURS[0], label="best fixed p")
        for way, own in _by(ours, lambda line: line.way).items():
            index = 1 + ways.index(way)
            style: dict[str, Any] = {"marker": MARKERS[index], "color": COLOURS[index], "linestyle": "--"}
            halves = [line.learned.half or 0 for line in own]
            signals, learned = [line.signals for line in own], [line.learned.mean for line in own]
            axis.errorbar(signals, learned, halves, label=_from(way), **style)
        log_axis(axis, "x", k)
        log_axis(axis, "y")
        axis.set(xlabel="k, signal words in a text (log scale)", ylabel="exponent p (log scale)")
        axis.set(title=pooler.replace("_", " ") if len(poolers) > 1 else "")
    legend_below(figure, axes, labels)
    return figure


def _from(way: str) -> str:
    return f"learned p: {way}"


@in_style
def hardness(rows: Sequence[Row]) -> Figure | None:
    """The entropy of the attention at every validation, a panel a task and encoder, a line a pooling."""
    rows = [row for row in rows if any(_entropies(run) for run in row.finished)]
    if not rows:
        return None
    called = names(rows)
    order = sorted(set(called.values()), key=natural)
    groups = _by(rows, task_and_encoder)
    figure, axes = panels(len(groups), SQUARE, legend=order)
    for axis, ((task, encoder), group) in zip(axes, groups.items(), strict=True):
        for row in sorted(group, key=lambda row: order.index(called[row.key])):  # thick lines first
            runs = [_entropies(run) for run in row.finished if _entropies(run)]
            shared = min(map(len, runs))
            path = np.mean([[entropy for _, entropy in run[:shared]] for run in runs], axis=0)
            style = series(order.index(called[row.key]), len(order))
            axis.plot([epoch for epoch, _ in runs[0][:shared]], path, label=called[row.key], **style)
        axis.set(title=f"{task}, {encoder}", xlabel="epoch", ylabel="entropy (nats)")
    legend_below(figure, axes, order)
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
            "The best fixed exponent and learned ones, with 95 % intervals, against the number of signal words",
            needles,
        ),
        "max_or_mean": (
            "max-or-mean",
            "The learned exponent against what max is ahead of mean by, a mark a place and learned norm; rho is "
            "Spearman's rank correlation over n places",
            max_or_mean.draw,
        ),
        "hardness": ("hardness", "Entropy of the attention over training, mean over seeds: low is hard", hardness),
    }
