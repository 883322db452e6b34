"""Tables as Markdown, CSV and LaTeX. A cell is text, a number or an estimate; CSV has all digits and the bounds."""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from experiments.base.errors import NonFiniteError
from experiments.reporting.records import Key, Row, Run, natural, telling
from experiments.reporting.statistics import REFERENCE, Comparison, Estimate, Overall, estimate

Cell: TypeAlias = str | int | float | Estimate | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A header, rows, and after the point as many digits as the column says."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    digits: tuple[int, ...]

    def _texts(self) -> list[list[str]]:
        return [[words(cell, digits) for cell, digits in zip(row, self.digits, strict=True)] for row in self.rows]

    def markdown(self) -> str:
        """Return the table as GitHub shows it."""
        lines = [self.header, ["---"] * len(self.header), *self._texts()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def latex(self) -> str:
        """Return the table for LaTeX with the package booktabs."""
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in [self.header, *self._texts()]]
        body = [lines[0], r"\midrule", *lines[1:]]
        begin, end = rf"\begin{{tabular}}{{{'l' * len(self.header)}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", *body, r"\bottomrule", end]) + "\n"

    def csv(self) -> str:
        """Return the numbers with all digits; an estimate becomes mean, low, high and n."""
        wide = [any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.header))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = (
            [f"{name} {part}" for part in _BOUNDS] if w else [name] for name, w in zip(self.header, wide, strict=True)
        )
        writer.writerow(chain.from_iterable(names))
        for row in self.rows:
            writer.writerow(chain.from_iterable(_bounds(c) if w else [c] for c, w in zip(row, wide, strict=True)))
        return out.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": Table.markdown, "csv": Table.csv, "latex": Table.latex}


def words(cell: Cell, digits: int) -> str:
    """Return a cell as text: "mean ± half the interval" for an estimate."""
    if cell is None:
        return ""
    if isinstance(cell, Estimate):
        mean = f"{cell.mean:.{digits}f}"
        return mean if cell.half is None else f"{mean} ± {cell.half:.{digits}f}"
    return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)


_BOUNDS = ("mean", "low", "high", "n")


def _bounds(cell: Any) -> tuple[Any, ...]:
    if not isinstance(cell, Estimate):
        return cell, None, None, None
    ends = (None, None) if cell.half is None else (cell.mean - cell.half, cell.mean + cell.half)
    return cell.mean, *ends, cell.n


_SPECIAL = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _of(row: Row, value: Callable[[Any], float]) -> Estimate | None:
    return estimate([value(run) for run in row.finished]) if row.finished else None


def results(rows: Sequence[Row], found: Mapping[Key, Comparison], *, brief: bool = False) -> Table:
    """Return one row a configuration, best accuracy first.

    When `brief`, options are only those that rows of the same task, encoder and pooler differ in.
    """
    failures = any(row.failed for row in rows)
    columns = {"task": 0, "encoder": 0, "pooler": 0, "options": 0, "runs": 0}
    columns |= {"failed": 0} if failures else {}
    columns |= {"test accuracy": 4, "macro-F1": 4}
    columns |= {"difference": 4, "Holm p": 3} if found else {}
    columns |= {"p": 2, "parameters": 0, "seconds": 0}
    lines = []
    for row in sorted(rows, key=lambda row: -np.mean([*row.accuracies().values()] or -1)):
        key, comparison = row.key, found.get(row.key)
        options = _telling_options(row, rows) if brief else key.options
        exponents = [float(run.p.mean()) for run in row.finished if run.p is not None]
        cells: list[Cell] = [key.task, key.encoder, key.pooler, options, len(row.finished)]
        cells += [len(row.failed)] if failures else []
        cells += [_of(row, lambda run: run.accuracy), _of(row, lambda run: run.facts["test"]["macro_f1"])]
        if found:
            cells += [comparison.difference, comparison.corrected] if comparison else [None, None]
        cells.append(estimate(exponents) if exponents else None)
        cells.append(", ".join(str(count) for count in sorted({run.facts["parameters"] for run in row.finished})))
        cells.append(_of(row, lambda run: run.facts["seconds"]["total"]))
        lines.append(tuple(cells))
    return Table(tuple(columns), tuple(lines), tuple(columns.values()))


def _telling_options(row: Row, rows: Sequence[Row]) -> str:
    alike = [other.key.options for other in rows if other.key[:3] == row.key[:3]]
    return telling(row.key.options, alike) if len(alike) > 1 else ""


def pivot(rows: Sequence[Row], found: Mapping[Key, Comparison], encoder: str) -> Table:
    """Return poolers down and tasks across, for one encoder.

    A cell is accuracy in percent ± half the interval, the best mean of a column between `**`. `*` marks a difference to
    attention pooling that Holm's correction leaves below 0.05, and `n` stands where it is not the usual one.
    """
    rows = [row for row in rows if row.key.encoder == encoder]
    places = [*dict.fromkeys((row.key.task, row.key.setting) for row in rows)]
    methods = sorted({row.key.method for row in rows}, key=natural)
    by_cell = {(row.key.method, row.key.task, row.key.setting): row for row in rows}
    usual = usual_n(rows)
    best = {
        place: max(
            (np.mean([*row.accuracies().values()]) for row in rows if row.finished and _place(row) == place), default=0
        )
        for place in places
    }
    lines = []
    for method in methods:
        cells: list[Cell] = [method]
        for place in places:
            row = by_cell.get((method, *place))
            cells.append("" if row is None else _pivot_cell(row, found.get(row.key), usual, float(best[place])))
        lines.append(tuple(cells))
    header = [_header(task, setting, [other for name, other in places if name == task]) for task, setting in places]
    return Table(("pooler", *header), tuple(lines), (0,) * (1 + len(places)))


def _header(task: str, setting: str, settings: Sequence[str]) -> str:
    return ", ".join(filter(None, (task, telling(setting, settings) if len(settings) > 1 else "")))


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
    mean, half, _ = estimate([100 * run.accuracy for run in row.finished])
    text = words(Estimate(mean, half, n), 1)
    text = f"**{text}**" if mean >= 100 * best - 1e-9 else text
    tested = comparison is not None and comparison.corrected is not None and comparison.corrected < 0.05
    return text + " *" * tested + note


def against_attention(lines: Sequence[Overall], rows: Sequence[Row]) -> Table:
    """Return one row a pooler: how often its mean is above that of attention pooling, and by how much on average.

    Time is that of a token in training, as a multiple of attention pooling's: the geometric mean over the places.
    """
    pace = {row.key: _pace(row) for row in rows}
    header = ("pooler", "places", "above", "below", "mean difference", "Wilcoxon p", "Holm p", "time")
    body = []
    for line in lines:
        d = np.array(line.differences)
        counts = (len(d), int((d > 0).sum()), int((d < 0).sum()))
        tests = line.p_value, line.corrected
        body.append((line.method, *counts, float(d.mean()), *tests, _relative(line.method, pace)))
    return Table(header, tuple(body), (0, 0, 0, 0, 4, 3, 3, 2))


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
    header = ("task", "encoder", "pooler", "runs", "broke down", "skipped steps", "tokens a second", "test accuracy")
    body = []
    for row in rows:
        broken = sum(run.exit_code == NonFiniteError.exit_code for run in row.failed)
        speeds = [run.facts["tokens_per_second"] for run in row.finished if "tokens_per_second" in run.facts]
        counts = (len(row.finished) + len(row.failed), broken, sum(run.skipped for run in row.finished))
        speed = estimate(speeds) if speeds else None
        key, accuracy = row.key, _of(row, lambda run: run.accuracy)
        body.append((key.task, key.encoder, key.method, *counts, speed, accuracy))
    return Table(header, tuple(body), (0, 0, 0, 0, 0, 0, 0, 4))


def _validated(run: Run) -> float:
    return float(run.facts["validation"]["accuracy"])


def against_linear(rows: Sequence[Row]) -> Table:
    """Return one row a linear baseline: the neural row that validation prefers on the same folds, and its distance."""
    body = []
    for linear in (row for row in rows if row.key.pooler == "linear"):
        of_fold = {run.fold: run.accuracy for run in linear.finished}
        neural = [
            [run for run in row.finished if run.config is not None and run.fold in of_fold]
            for row in rows
            if row.key.task == linear.key.task and row.is_grouped == linear.is_grouped
        ]
        if any(neural):
            chosen = max(filter(None, neural), key=lambda runs: np.mean([_validated(run) for run in runs]))
            ours = estimate([run.accuracy for run in chosen])
            theirs = float(np.mean([of_fold[run.fold] for run in chosen]))
            key, split = chosen[0].key, linear.key.setting
            body.append(
                (
                    f"{key.task} ({split})" if split else key.task,
                    theirs,
                    key.encoder,
                    key.method,
                    ours,
                    ours.mean - theirs,
                )
            )
    header = ("task", "linear", "encoder", "pooler", "test accuracy", "difference")
    return Table(header, tuple(body), (0, 4, 0, 0, 4, 4))
