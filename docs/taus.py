"""How far the weights of words agree with what they matter, of many runs: ``python docs/taus.py PICTURE RUN...``.

Each run must have been asked ``--analysis gradient`` and ``--analysis leave_one_out``. Marks are means over texts and
seeds, bars the 95 % interval over three seeds or more. The picture is written as PNG and PDF.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.base.figures import WIDTH, in_style, legend_below, panels, save, series
from experiments.reporting import answers, records
from experiments.reporting.records import Row
from experiments.reporting.statistics import Estimate

WEIGHTS = ("attention", "effective", "contribution", "gradient")


def taus(rows: Sequence[Row], measure: str) -> dict[tuple[str, str, str], Estimate]:
    """Return mean taus with a measure by encoder, pooler and weight."""
    table = answers.table(rows, f"{measure}-test")
    lines = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    chosen = [line for line in lines if line["with"] == measure]
    return {(line["encoder"], line["pooler"], line["of the words"]): line["mean tau"] for line in chosen}


@in_style
def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the taus of every encoder and pooler, those with the gradient left and those with leave one out right."""
    places = list(dict.fromkeys((row.key.encoder, row.key.pooler) for row in rows))
    figure, axes = panels(2, 0.9 + 0.26 * len(places), legend=WEIGHTS, width=WIDTH)
    for axis, measure in zip(axes, ("gradient", "leave_one_out"), strict=True):
        found = taus(rows, measure)
        for number, weight in enumerate(WEIGHTS):
            points = [(at, found[*place, weight]) for at, place in enumerate(places) if (*place, weight) in found]
            if points:
                at, of = zip(*points, strict=True)
                means, halves = [one.mean for one in of], [one.half or 0 if one.n > 2 else 0 for one in of]
                heights = [each + 0.15 * (number - 1.5) for each in at]
                axis.errorbar(
                    means,
                    heights,
                    xerr=halves,
                    **series(number, 4) | {"linestyle": "none", "clip_on": True},
                    capsize=2,
                    label=weight,
                )
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.set(xlabel=f"mean tau with {measure.replace('_', ' ')}", xlim=(-0.1, 1), ylim=(len(places) - 0.5, -0.5))
        axis.set_yticks(range(len(places)), [", ".join(place) for place in places] if axis is axes[0] else [])
    legend_below(figure, axes, WEIGHTS)
    save(figure, path)


if __name__ == "__main__":
    draw(records.rows(records.collect(map(Path, sys.argv[2:]))), Path(sys.argv[1]))
