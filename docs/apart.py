"""How far adversaries are from their bases, in attention and in output: ``python docs/apart.py PICTURE RUN...``.

RUN are runs of the objective ``adversary``, or folders of sweeps. A line is an encoder and a pooler, its marks are the
strengths, the smallest first. The picture is written as PNG and PDF.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.base.figures import in_style, legend_below, panels, save, series
from experiments.reporting import records
from experiments.reporting.records import Run


@in_style
def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw the divergence of the attention against the distance of the outputs, means over the test texts."""
    lines = {f"{run.key.encoder}, {run.key.pooler}": [] for run in runs}
    for run in sorted(runs, key=lambda run: run.config.head.strength):
        tested = run.facts["test"]
        lines[f"{run.key.encoder}, {run.key.pooler}"].append((tested["variation"], tested["jensen_shannon"]))
    figure, axes = panels(1, 2.6, legend=tuple(lines))
    for number, (name, points) in enumerate(lines.items()):
        variations, divergences = zip(*points, strict=True)
        axes[0].plot(variations, divergences, **series(number, len(lines)), label=name)
    axes[0].axhline(math.log(2), color="0.5", linewidth=0.8, linestyle=":")
    axes[0].set(xlabel="mean distance of the outputs (TVD)", ylabel="mean divergence (JSD)", ylim=(0, 0.75))
    legend_below(figure, axes, tuple(lines))
    save(figure, path)


if __name__ == "__main__":
    found = records.collect(map(Path, sys.argv[2:]))
    draw([run for run in found if run.key.objective == "adversary" and run.summary], Path(sys.argv[1]))
