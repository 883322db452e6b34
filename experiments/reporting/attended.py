"""What each pooling attends to in a text, from trained runs."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.base.errors import UsageError
from experiments.data.text import split_words
from experiments.reporting.figures import STYLE
from experiments.reporting.records import Row, Run
from experiments.run.trained import load_run


def split_text(given: str, rows: Sequence[Row]) -> tuple[str, list[Row]]:
    """Return the text of "TASK: TEXT", and the rows of that task."""
    task, colon, text = given.partition(":")
    chosen = [row for row in rows if row.key.task == task.strip() and row.finished and row.finished[0].config]
    if not colon or not split_words(text):
        raise UsageError(f"--text {given!r} must be TASK: TEXT, as 'trec: What is a fern?'")
    if not chosen:
        known = ", ".join(sorted({row.key.task for row in rows}))
        raise UsageError(f"--text {given!r}: there is no run of the task {task.strip()!r}, but of {known}.")
    return text.strip(), chosen


def weights(run: Run, text: str) -> np.ndarray | None:
    """Return the attention of a run on the words of a text, heads averaged; None for a pooling without attention."""
    trained = load_run(run.folder)
    words = split_words(text)
    _, outputs = next(trained.outputs([text]))
    if "attention" not in outputs:
        return None
    attention = np.asarray(outputs["attention"])[0]
    return attention.reshape(len(attention), -1).mean(-1)[: len(words)]


def draw(text: str, rows: Sequence[Row]) -> Figure | None:
    """A panel an encoder, a line of shaded words a pooling; the first seed of each."""
    words = split_words(text)
    encoders: dict[str, list[tuple[str, np.ndarray]]] = {}
    for row in rows:
        found = weights(row.finished[0], text)
        if found is not None:
            encoders.setdefault(row.key.encoder, []).append((row.key.method, found))
    if not encoders:
        return None
    lines = sum(map(len, encoders.values()))
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(max(6.0, 2.4 + 0.62 * len(words)), 1.2 + 0.42 * lines + 0.5 * len(encoders)))
        ratios = [len(group) for group in encoders.values()]
        panels = figure.subplots(len(encoders), 1, squeeze=False, sharex=True, height_ratios=ratios).ravel()
        for axis, (encoder, group) in zip(panels, sorted(encoders.items()), strict=True):
            shown = np.zeros((len(group), len(words)))
            for line, (_, found) in zip(shown, group, strict=True):
                line[: len(found)] = found
            image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axis.set_yticks(range(len(group)), [method for method, _ in group])
            axis.set_title(encoder, fontsize=11)
            for at, value in np.ndenumerate(shown):
                axis.text(at[1], at[0], f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center", size=8,
                          color="white" if value > 0.6 else "black")  # fmt: skip
        panels[-1].set_xticks(range(len(words)), words, rotation=40, ha="right")
        figure.colorbar(image, ax=[*panels], label="attention weight", shrink=0.8)
    return figure
