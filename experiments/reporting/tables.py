"""The tables of a report: what runs of one configuration, one pooler or one task come to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.base.errors import NonFiniteError
from experiments.reporting.formats import Cell, Table, words
from experiments.reporting.measures import in_order, measure_of, shown
from experiments.reporting.records import Key, Row, differing, natural
from experiments.reporting.statistics import REFERENCE, Comparison, Estimate, Overall, estimate


def _of(row: Row, value: Callable[[Any], float]) -> Estimate | None:
    return estimate([value(run) for run in row.finished]) if row.finished else None


def results(rows: Sequence[Row], found: Mapping[Key, Comparison], *, brief: bool = False) -> Table:
    """Return one row a configuration, objective by objective, the best first; a metric that a row has not is blank.

    When `brief`, options are only those that rows of the same task, encoder and pooler differ in.
    """
    failures = any(row.failed for row in rows)
    objectives = in_order(row.key.objective for row in rows)
    metrics = dict.fromkeys(header for objective in objectives for header in _metrics(objective))
    columns = {"objective": 0} if len(objectives) > 1 else {}
    columns |= {"task": 0, "encoder": 0, "pooler": 0, "options": 0, "runs": 0}
    columns |= {"failed": 0} if failures else {}
    columns |= dict.fromkeys(metrics, 4)
    columns |= {"difference": 4, "Holm p": 3} if found else {}
    margins = any(comparison.equivalence is not None for comparison in found.values())
    columns |= {"equivalence Holm p": 3} if margins else {}
    columns |= {"p": 2, "parameters": 0, "seconds": 0}
    lines = []
    for row in sorted(rows, key=lambda row: (objectives.index(row.key.objective), -row.gain)):
        key, comparison = row.key, found.get(row.key)
        options = differing_options(row, rows) if brief else key.options
        exponents = [float(run.p.mean()) for run in row.finished if run.p is not None]
        cells: list[Cell] = [key.objective] if len(objectives) > 1 else []
        cells += [key.task, key.encoder, key.pooler, options, len(row.finished)]
        cells += [len(row.failed)] if failures else []
        own = _metrics(key.objective)
        cells += [_tested(row, own[header]) if header in own else None for header in metrics]
        if found:
            cells += [comparison.difference, comparison.corrected] if comparison else [None, None]
            cells += [comparison.equivalence_corrected if comparison else None] if margins else []
        cells.append(estimate(exponents) if exponents else None)
        cells.append(", ".join(str(count) for count in sorted({run.facts["parameters"] for run in row.finished})))
        cells.append(_of(row, lambda run: run.facts["seconds"]["total"]))
        lines.append(tuple(cells))
    return Table(tuple(columns), tuple(lines), tuple(columns.values()))


def _metrics(objective: str) -> dict[str, str]:
    """Return the names of the metrics that an objective shows, by what stands above their columns."""
    chosen = measure_of(objective).name
    return {f"test {label}" if name == chosen else label: name for name, label in shown(objective).items()}


def _tested(row: Row, metric: str) -> Estimate | None:
    return _of(row, lambda run: run.facts["test"][metric])


def differing_options(row: Row, rows: Sequence[Row]) -> str:
    """Return the options of a row that not all rows of its task, encoder, pooler and objective have."""
    alike = [other.key.options for other in rows if _parts(other.key) == _parts(row.key)]
    return differing(row.key.options, alike) if len(alike) > 1 else ""


def _parts(key: Key) -> tuple[str, str, str, str]:
    return key.task, key.encoder, key.pooler, key.objective


def pivot(rows: Sequence[Row], found: Mapping[Key, Comparison], encoder: str) -> Table:
    """Return poolers down and tasks across, for one encoder and one objective.

    A cell is the score ± half the interval, in percent where it is a share, the best mean of a column between `**`. `*`
    marks a difference to attention pooling that Holm's correction leaves below 0.05, and `n` stands where it is not the
    usual one.
    """
    rows = [row for row in rows if row.key.encoder == encoder]
    places = [*dict.fromkeys((row.key.task, row.key.setting) for row in rows)]
    methods = sorted({row.key.method for row in rows}, key=natural)
    by_cell = {(row.key.method, row.key.task, row.key.setting): row for row in rows}
    usual = usual_n(rows)
    best = {place: max(row.gain for row in rows if _place(row) == place) for place in places}
    lines = []
    for method in methods:
        cells: list[Cell] = [method]
        for place in places:
            row = by_cell.get((method, *place))
            cells.append("" if row is None else _pivot_cell(row, found.get(row.key), usual, best[place]))
        lines.append(tuple(cells))
    header = [_header(task, setting, [other for name, other in places if name == task]) for task, setting in places]
    return Table(("pooler", *header), tuple(lines), (0,) * (1 + len(places)))


def preferred(rows: Sequence[Row]) -> Table:
    """Return one row a pooler with its options: its mean score on the validation split over places, the best first.

    Settings are chosen by this table, which reads no test split. Places are those where every pooler has finished runs;
    `rank` is the mean of the ranks there, 1 being the best.
    """
    measure = rows[0].key.measure
    done = {
        (row.key.method, row.key.place): measure.gain([run.validated for run in row.finished])
        for row in rows
        if row.finished
    }
    methods = list(dict.fromkeys(method for method, _ in done))
    reached = dict.fromkeys(place for _, place in done)
    places = [place for place in reached if all((method, place) in done for method in methods)]
    lines: list[tuple[Cell, ...]] = []
    if len(methods) > 1 and places:
        gains = np.array([[done[method, place] for place in places] for method in methods])
        means, ranks = gains.mean(axis=1), stats.rankdata(-gains, axis=0).mean(axis=1)
        order = np.argsort(-means, kind="stable")
        lines = [(methods[i], len(places), float(measure.sign * means[i]), float(ranks[i])) for i in order]
    return Table(("pooler", "places", f"validation {measure.label}", "rank"), tuple(lines), (0, 0, 4, 1))


def _header(task: str, setting: str, settings: Sequence[str]) -> str:
    return ", ".join(filter(None, (task, differing(setting, settings) if len(settings) > 1 else "")))


def _place(row: Row) -> tuple[str, str]:
    return row.key.task, row.key.setting


def usual_n(rows: Sequence[Row]) -> int:
    """Return the number of finished runs that most rows have, the larger of two equally frequent ones."""
    counts = [len(row.finished) for row in rows]
    return max(counts, key=lambda n: (counts.count(n), n))


def _pivot_cell(row: Row, comparison: Comparison | None, usual: int, best: float) -> str:
    n, notes = len(row.finished), []
    if row.failed:
        notes.append(f"{len(row.failed)} failed")
    if n != usual:
        notes.append(f"n = {n}")
    note = f" ({', '.join(notes)})" if notes else ""
    if not n:
        return f"none{note}"
    measure = row.key.measure
    text = words(estimate([measure.scale * run.score for run in row.finished]), measure.digits)
    text = f"**{text}**" if row.gain >= best - 1e-11 else text
    return text + " *" * (comparison is not None and comparison.differs) + note


def against_attention(lines: Sequence[Overall], rows: Sequence[Row]) -> Table:
    """Return one row a pooler: how often its mean is ahead of that of attention pooling, and by how much on average.

    The interval of the difference is over places; `differ` and `equivalent` count the places where a test shows that.
    Time is that of a token in training, as a multiple of attention pooling's: the geometric mean over the places.
    """
    pace = {row.key: _pace(row) for row in rows}
    measure = rows[0].key.measure
    shown = ("differ", "equivalent") if measure.margin else ("differ",)
    header = ("pooler", "places", *measure.ahead, "mean difference", *shown, "Wilcoxon p", "Holm p", "time")
    body: list[tuple[Cell, ...]] = []
    for line in lines:
        d = measure.sign * np.array([comparison.difference.mean for comparison in line.comparisons])
        counts = (len(d), int((d > 0).sum()), int((d < 0).sum()))
        differ = sum(comparison.differs for comparison in line.comparisons)
        tested = (differ, sum(comparison.is_equivalent for comparison in line.comparisons))[: len(shown)]
        time = _relative(line.method, pace)
        body.append((line.method, *counts, line.difference, *tested, line.p_value, line.corrected, time))
    return Table(header, tuple(body), (0, 0, 0, 0, 4, *[0] * len(shown), 3, 3, 2))


def _pace(row: Row) -> float | None:
    """Seconds a token, the median over runs."""
    speeds = [run.facts["tokens_per_second"] for run in row.finished if "tokens_per_second" in run.facts]
    return 1 / float(np.median(speeds)) if speeds else None


def _relative(method: str, pace: Mapping[Key, float | None]) -> float | None:
    reference = {key.place: own for key, own in pace.items() if key.method == REFERENCE}
    pairs = [(own, reference.get(key.place)) for key, own in pace.items() if key.method == method]
    ratios = [own / theirs for own, theirs in pairs if own and theirs]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else None


def exponents(rows: Sequence[Row]) -> Table:
    """Return encoders and poolers down, tasks across: the learned exponent, its mean over heads or features."""
    learned: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in rows:
        values = [float(run.p.mean()) for run in row.finished if run.p is not None and run.trains_p]
        if values:
            learned.setdefault((row.key.encoder, row.key.method), {})[row.key.task] = estimate(values)
    tasks = [*dict.fromkeys(task for cells in learned.values() for task in cells)]
    body = [(*names, *(cells.get(task) for task in tasks)) for names, cells in learned.items()]
    return Table(("encoder", "pooler", *tasks), tuple(body), (0, 0, *[2] * len(tasks)))


def stability(rows: Sequence[Row]) -> Table:
    """Return one row a configuration: how often training broke down on a number that is not finite, speed, score."""
    counted = ("runs", "broke down", "skipped steps", "tokens a second")
    header = ("task", "encoder", "pooler", *counted, f"test {rows[0].key.measure.label}")
    body = []
    for row in rows:
        broken = sum(run.exit_code == NonFiniteError.exit_code for run in row.failed)
        speeds = [run.facts["tokens_per_second"] for run in row.finished if "tokens_per_second" in run.facts]
        counts = (len(row.finished) + len(row.failed), broken, sum(run.skipped for run in row.finished))
        speed = estimate(speeds) if speeds else None
        key, score = row.key, _of(row, lambda run: run.score)
        body.append((key.task, key.encoder, key.method, *counts, speed, score))
    return Table(header, tuple(body), (0, 0, 0, 0, 0, 0, 0, 4))


def against_baseline(rows: Sequence[Row], baselines: Sequence[Row]) -> Table:
    """Return one row a baseline: the neural row that validation prefers on the same folds, and its distance.

    All rows are of one objective. A row whose test split is another, as its words are cut or counted otherwise, is no
    match for a baseline that says what its own was.
    """
    body = []
    for baseline in baselines:
        of_fold = {run.fold: run.score for run in baseline.finished}
        neural = [
            [run for run in row.finished if run.fold in of_fold]
            for row in rows
            if not row.is_baseline and _is_comparable(row, baseline)
        ]
        if any(neural):
            measure = baseline.key.measure
            chosen = max(filter(None, neural), key=lambda runs: measure.gain([run.validated for run in runs]))
            ours = estimate([run.score for run in chosen])
            theirs = float(np.mean([of_fold[run.fold] for run in chosen]))
            key, split = chosen[0].key, baseline.key.setting
            task = f"{key.task} ({split})" if split else key.task
            body.append((task, theirs, key.encoder, key.method, ours, ours.mean - theirs))
    name, label = (baselines[0].key.pooler, baselines[0].key.measure.label) if baselines else ("", "")
    header = ("task", name, "encoder", "pooler", f"test {label}", "difference")
    return Table(header, tuple(body), (0, 4, 0, 0, 4, 4))


def _is_comparable(row: Row, baseline: Row) -> bool:
    same_data = row.key.task == baseline.key.task and row.is_grouped == baseline.is_grouped
    return same_data and row.key.objective == baseline.key.objective and _same_test(row, baseline)


def _same_test(row: Row, baseline: Row) -> bool:
    """Whether both tested the same words; a baseline that reads texts in its own way says nothing of them."""
    splits = [run.test_digest for run in (*baseline.finished[:1], *row.finished[:1])]
    return splits[0] is None or splits[0] in splits[1:]
