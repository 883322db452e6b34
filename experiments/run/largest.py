"""A number a text against the largest weight of one of its words: the rows of a table by quarters, and a picture."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from experiments.base.figures import COLOURS

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_CLASSES = 4
"""Classes that a picture tells apart by colour, the most frequent ones; the others are grey."""
GREY = "0.6"
OTHERS, MEDIAN = "other classes", "median of a quarter"


class Quarter(NamedTuple):
    """Texts whose largest weight is in one quarter of what is possible."""

    name: str
    texts: Int[np.ndarray, " N"]
    """Their places."""


def quarters(largest: Float[np.ndarray, " N"]) -> Iterator[Quarter]:
    """Yield all texts, then the quarters in which there are texts."""
    yield Quarter("all", np.arange(len(largest)))
    places = np.clip(np.searchsorted(EDGES, largest, side="right") - 1, 0, len(EDGES) - 2)
    for place in np.unique(places):
        yield Quarter(f"{EDGES[place]:.2f} to {EDGES[place + 1]:.2f}", np.flatnonzero(places == place))


def frequent(classes: Sequence[str]) -> list[str]:
    """Return the most frequent classes by name."""
    return sorted(name for name, _ in Counter(classes).most_common(MOST_CLASSES))


def draw(
    axis: Axes,
    largest: Float[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    classes: Sequence[str],
    named: Sequence[str],
) -> None:
    """Draw a dot a text, in the colour of its class if that is `named`, and the median of every quarter as a line."""
    for name in [*named, *sorted(set(classes) - {*named})]:
        of_class = np.array([other == name for other in classes])
        colour, label = (COLOURS[named.index(name) % len(COLOURS)], name) if name in named else (GREY, OTHERS)
        axis.scatter(largest[of_class], values[of_class], s=4, alpha=0.5, color=colour, label=label, linewidths=0)
    for name, texts in list(quarters(largest))[1:]:
        ends = [float(end) for end in name.split(" to ")]
        axis.plot(ends, [np.median(values[texts])] * 2, color="black", linewidth=1.5, label=MEDIAN)
    axis.set(xlim=(0, 1), xlabel="largest weight")
