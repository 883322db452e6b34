"""Taus of several runs in one table and one picture: ``python docs/taus.py PICTURE RUN...``.

Each run must have been asked ``--analysis leave_one_out``, whose file holds all measures of all words. The table is
printed; the picture is written as PNG and PDF.
"""

import json
import sys
from pathlib import Path

import numpy as np

from experiments.analyse import markdown
from experiments.base.figures import WIDTH, in_style, legend_below, panels, save, series
from experiments.run.config import CONFIG, from_json
from experiments.run.importance import tau

WEIGHTS = ("attention", "effective", "contribution")


def row_of(run: Path) -> dict[str, object]:
    """Return the mean taus of the gradient and of every weight with what the words matter."""
    config = from_json((run / CONFIG).read_text())
    limit = getattr(config.pool, "scale_limit", "")
    stored = json.loads((run / "analyses" / "leave_one_out-test.json").read_text())
    words = [text["words"] for text in stored["examples"]]
    row = {"encoder": config.encoder, "pooler": f"{config.pooler} {limit}".strip(), "texts": len(words)}
    row["accuracy"] = json.loads((run / "summary.json").read_text())["test"]["accuracy"]
    row["cosine"] = stored["summary"]["mean cosine of states"]
    row["gradient, leave one out"] = mean(words, "gradient", "leave_one_out")
    for other in ("gradient", "leave_one_out"):
        for name in WEIGHTS:
            row[f"{name}, {other.replace('_', ' ')}"] = mean(words, name, other)
    return row


def mean(words: list[dict[str, list[float]]], one: str, other: str) -> float | str:
    """Return the mean of tau over the texts that have one; nothing where the pooling has no such weight."""
    taus = [tau(np.array(text[one]), np.array(text[other]))[0] for text in words if one in text]
    found = [each for each in taus if each is not None]
    return float(np.mean(found)) if found else ""


@in_style
def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Draw the taus of every run, those with the gradient left and those with leave one out right."""
    figure, axes = panels(2, 0.9 + 0.3 * len(rows), legend=(*WEIGHTS, "gradient"), width=WIDTH)
    names = [f"{row['encoder']}, {row['pooler']}" for row in rows]
    for axis, other in zip(axes, ("gradient", "leave one out"), strict=True):
        for at, name in enumerate((*WEIGHTS, "gradient")):
            taus = [row.get(f"{name}, {other}", "") for row in rows]
            points = [(each, place) for place, each in enumerate(taus) if each != ""]
            if points:
                axis.plot(*zip(*points, strict=True), **series(at, 4) | {"linestyle": "none"}, label=name)
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.set(xlabel=f"mean tau with {other}", xlim=(-0.2, 1), yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5))
        axis.set_yticklabels(names if axis is axes[0] else [])
    legend_below(figure, axes, (*WEIGHTS, "gradient"))
    save(figure, path)


if __name__ == "__main__":
    table = [row_of(Path(run)) for run in sys.argv[2:]]
    print(markdown(table))
    draw(table, Path(sys.argv[1]))
