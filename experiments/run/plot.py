"""The plot of a run: loss, metrics and exponent over the epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.base.contracts import Objective
from experiments.base.figures import in_style, panels, save, series, within
from experiments.run.result import in_words


@in_style
def plot(path: Path, records: list[dict[str, Any]], facts: dict[str, Any], objective: type[Objective]) -> None:
    """Draw the loss, each metric that the objective shows and, where the pooler has one, the exponent.

    Shares are in percent. The title says what was trained, with which seed, and what the test found.
    """
    epochs = [record["epoch"] for record in records]
    has_p = "p" in records[0]
    figure, axes = panels(1 + len(objective.shown) + has_p, 2.2, across=4)
    training = [record["train_loss"] for record in records[1:]]
    axes[0].plot(epochs[1:], training, label="training", **series(0, 2))
    for axis, (name, label) in zip(axes, {"loss": "loss", **objective.shown}.items(), strict=False):
        is_share = name in objective.shares
        if name in records[0]:  # a split whose texts have no classes has no loss
            values = [record[name] * (100 if is_share else 1) for record in records]
            axis.plot(epochs, values, label="validation", **series(1, 2))
        axis.set(xlabel="epoch", ylabel=f"{label} (%)" if is_share else label)
        if is_share:
            within(axis, 0, 100, "y")
    if has_p:
        axes[-1].set(xlabel="epoch", ylabel="exponent p")
        draw_exponent(axes[-1], epochs, [record["p"] for record in records], **series(1, 2))
    axes[0].legend()
    trained = ", ".join(f"{facts[name]}" for name in ("task", "encoder", "pooler"))
    figure.suptitle(f"{trained}, seed {facts['seed']}\n{in_words(facts)}")
    save(figure, path)


def draw_exponent(axis: Axes, epochs: Sequence[float], values: Sequence[Any], **style: Any) -> None:
    """Draw a line an exponent; where each feature has one, their median and the range of half of them."""
    path = np.array([np.ravel(p) for p in values])
    if path.shape[1] > 16:
        axis.fill_between(epochs, *np.quantile(path, [0.25, 0.75], axis=1), alpha=0.2, color=style["color"])
        path = np.median(path, axis=1, keepdims=True)
    for line in path.T:
        axis.plot(epochs, line, **style)
