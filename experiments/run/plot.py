"""The plot of a run: loss, metrics and exponent over the epochs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def plot(path: Path, records: list[dict[str, Any]], title: str, shown: Mapping[str, str]) -> None:
    """Draw the loss, each metric that the objective shows and, where the pooler has one, the exponent."""
    epochs = [record["epoch"] for record in records]
    panels = ["loss", *shown, *["p"] * ("p" in records[0])]
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.set(xlabel="epoch", title=shown.get(panel, panel))
        if panel == "p":
            axes.plot(epochs, np.array([np.ravel(record["p"]) for record in records]), marker=".", color="C2")
            continue
        if panel == "loss":
            axes.plot(epochs[1:], [record["train_loss"] for record in records[1:]], marker=".", label="train")
        if panel in records[0]:  # a split whose texts are no classes has no loss
            axes.plot(epochs, [record[panel] for record in records], marker=".", label="validation")
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
