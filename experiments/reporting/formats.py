"""Tables as Markdown, CSV and LaTeX. A cell is text, a number or an estimate; CSV has all digits and the bounds."""

import csv
import dataclasses
import io
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeAlias

from experiments.reporting.statistics import Estimate

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
