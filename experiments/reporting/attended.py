"""What each pooling attends to in a text, from trained runs."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.base.errors import UsageError
from experiments.base.figures import HEIGHT, WIDTH, in_style
from experiments.data.text import split_words
from experiments.reporting.labels import names
from experiments.reporting.records import Row, Run
from experiments.run.explanation import attention_of
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
    """Return the attention of a run on the words of a text; None for a pooling without attention.

    Where a model attends to sentences, every word has the attention of its sentence.
    """
    trained = load_run(run.folder)
    batch, outputs = next(trained.outputs([text]))
    attention = attention_of(trained.objective, outputs)
    if attention is None:
        return None
    words = batch.mask[0].reshape(len(batch.mask[0]), -1).sum(axis=-1)
    return np.repeat(np.asarray(attention)[0], words)


@in_style
def draw(text: str, rows: Sequence[Row]) -> Figure | None:
    """A panel an encoder, a line of shaded words a pooling; the first seed of each."""
    words, called = split_words(text), names(rows)
    encoders: dict[str, list[tuple[str, np.ndarray]]] = {}
    for row in sorted(rows, key=lambda row: row.key.encoder):
        found = weights(row.finished[0], text)
        if found is not None:
            encoders.setdefault(row.key.encoder, []).append((called[row.key], found))
    if not encoders:
        return None
    lines = sum(map(len, encoders.values()))
    longest = max(len(name) for group in encoders.values() for name, _ in group)
    cell = (WIDTH - 0.9 - 0.06 * longest) / len(words)  # inches, as `line` is
    height = min(0.8 + 0.2 * lines + 0.25 * len(encoders), HEIGHT)
    line = (height - 0.8 - 0.25 * len(encoders)) / lines
    top = max(float(found.max()) for group in encoders.values() for _, found in group)
    with rc_context({"axes.grid": False, "ytick.labelsize": min(7, 60 * line)}):
        figure = Figure(figsize=(WIDTH, height))
        ratios = [len(group) for group in encoders.values()]
        panels = figure.subplots(len(encoders), 1, squeeze=False, sharex=True, height_ratios=ratios).ravel()
        for axis, (encoder, group) in zip(panels, encoders.items(), strict=True):
            shown = np.zeros((len(group), len(words)))
            for row_of, (_, found) in zip(shown, group, strict=True):
                row_of[: len(found)] = found
            image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=top, aspect="auto")
            axis.set(title=encoder, yticks=range(len(group)), yticklabels=[name for name, _ in group])
            if cell > 0.2 and line > 0.1:  # else numbers would not fit
                _numbers(axis, shown, 0.6 * top)
        size = min(7, 60 * cell)
        panels[-1].set_xticks(range(len(words)), words, rotation=40 if cell > 0.2 else 90, ha="right", size=size)
        figure.colorbar(image, ax=[*panels], label="attention weight", shrink=0.8)
    return figure


def _numbers(axis: Axes, shown: np.ndarray, dark: float) -> None:
    for (row, column), value in np.ndenumerate(shown):
        ink, number = "white" if value > dark else "black", f"{value:.2f}"[1:] if value < 0.995 else "1"
        axis.text(column, row, number, ha="center", va="center", size=6, color=ink)
