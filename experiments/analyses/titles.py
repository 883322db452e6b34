"""Sample titles, and how well titles of beams of several widths agree with those of the authors."""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
from flax import nnx

from experiments.base.errors import UsageError
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data import rouge
from experiments.data.text import Example, split_words
from experiments.layers.titles import words_of
from experiments.run.trained import Trained

GREEDY = "greedy"
_BEGINNING = 12  # words of a text that are printed


@dataclasses.dataclass(frozen=True)
class TitlesOptions:
    """Titles of the greedy choice and of a beam search, with their ROUGE, and samples of them."""

    samples: Annotated[int, Interval("[0, 10000]")] = 10
    """Titles that are printed, spread evenly over the texts."""
    width: Annotated[int, Interval("[1, 64]")] = 4
    """Titles that the beam search keeps at every step."""
    length_power: Annotated[float, Interval("[0, 4]")] = 1.0
    """The search compares log p / n^a for n words and the end; this is a."""


class TitleSamples:
    """Rows of a text, the title of its author and those that are written; ROUGE over all texts in the summary."""

    Options: ClassVar[type] = TitlesOptions

    def __init__(self, options: TitlesOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return the samples."""
        if not hasattr(trained.objective, "search"):
            raise UsageError(f"the objective {trained.config.objective} writes no titles.")
        rouge.check_installed()
        kept = list(examples)
        beams = {GREEDY: (1, 0.0), f"beam of {self.options.width}": (self.options.width, self.options.length_power)}
        written = {name: titles(trained, kept, *beam) for name, beam in beams.items()}
        found = []
        for at, example in enumerate(kept):
            texts = {name: written[name][at] for name in beams}
            scores = {name: rouge.each(split_words(example.target), text.split()) for name, text in texts.items()}
            found.append({"text": example.text, "title": example.target, **texts, "rouge": scores})
        count = min(self.options.samples, len(found))
        samples = [found[at * len(found) // count] for at in range(count)]
        return Findings([_row(sample, beams) for sample in samples], _summary(found), found)


def _row(sample: dict[str, Any], beams: Iterable[str]) -> dict[str, Any]:
    """Return a row of the table."""
    words = sample["text"].split()
    beginning = " ".join(words[:_BEGINNING]) + " ..." * (len(words) > _BEGINNING)
    shown = {"text": beginning, "title": sample["title"], **{name: sample[name] for name in beams}}
    return {name: cell.replace("|", "/") for name, cell in shown.items()}


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean ROUGE of every search."""
    return {
        f"{metric} {name}": float(np.mean([one["rouge"][name][metric] for one in found]))
        for name in (found[0]["rouge"] if found else ())
        for metric in rouge.NAMES
    }


def titles(trained: Trained, examples: list[Example], width: int, length_power: float) -> list[str]:
    """Return the best title of every text that a search finds."""
    graph, state = nnx.split(trained.objective)
    codec: Any = trained.codec
    found = []
    for batch in codec.encode(example.text for example in examples):
        words = np.asarray(_searched(graph, width, length_power, state, batch))
        found += [codec.title(words_of(row)) for row in words[batch.weights > 0]]
    return found


@partial(jax.jit, static_argnums=(0, 1, 2))
def _searched(graph: Any, width: int, length_power: float, state: nnx.State, batch: Any) -> jax.Array:
    """Return the best title of every text of a batch."""
    objective: Any = nnx.merge(graph, state)
    return objective.search(objective(batch), width, length_power).words[:, 0]
