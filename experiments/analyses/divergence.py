"""Whether other runs attend to the same words: the seeds and the adversaries of Wiegreffe and Pinter (EMNLP 2019)."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.base.errors import UsageError
from experiments.base.figures import in_style, legend_below, panels, series
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.layers.losses import jensen_shannon, total_variation
from experiments.run import largest
from experiments.run.importance import GRADIENT, Measured, facts, measured
from experiments.run.trained import Trained, load_run


@dataclasses.dataclass(frozen=True)
class DivergenceOptions:
    """Jensen-Shannon divergence of the weights of other runs from those of this one, and distance of their outputs."""

    others: tuple[Path, ...] = ()
    """Folders of finished runs that predict the same classes."""
    shortest: Annotated[int, Interval("[2, 65536]")] = 2
    """Texts of fewer words are left out; the paper keeps sentences of 6 words and more."""


class Divergence:
    """The same texts in two models: how far their weights are apart, and how far their outputs."""

    Options: ClassVar[type] = DivergenceOptions

    def __init__(self, options: DivergenceOptions):
        if not options.others:
            raise UsageError("give one or more other runs: --ask.others RUN")
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return a row for every run and weight that both models have."""
        chosen = list(examples)
        base = self._measured(trained, chosen)
        table: list[dict[str, Any]] = []
        found: dict[str, Any] = {}
        for folder in self.options.others:
            texts = self._measured(_fitting(trained, folder), chosen)
            if [text.words for text in texts] != [text.words for text in base]:
                raise UsageError(f"{folder} reads other words of the texts, as with another --data.max-len.")
            change = _distance(base, texts)
            apart = {name: _apart(base, texts, name) for name in _shared(base, texts)}
            if base and not apart:
                raise UsageError(f"{folder} weighs words in no way that this run does.")
            found[str(folder)] = {"JSD": apart, "change": change}
            for name, values in apart.items():
                row = {"run": folder.name, "of the words": name, "texts": len(base), "mean JSD": float(values.mean())}
                row |= {"standard deviation": float(values.std()), "mean change": float(change.mean())}
                table.append(row)
        stored = [
            {"text": " ".join(text.words), "runs": jax.tree.map(lambda x, at=at: float(x[at]), found)}
            for at, text in enumerate(base)
        ]
        figure = picture(base, found, table) if base else None
        return Findings(table, facts([text.cosine for text in base]), stored, figure)

    def _measured(self, trained: Trained, examples: list[Example]) -> list[Measured]:
        return [text for some in measured(trained, examples, self.options.shortest) for text in some]


def _fitting(trained: Trained, folder: Path) -> Trained:
    """Return another run, or raise UsageError where it predicts something else."""
    other = load_run(folder)
    same = other.config.objective == trained.config.objective or "classes" in trained.codec.sizes
    stored = [one.codec.to_json() for one in (trained, other)]
    targets = [{name: value for name, value in one.items() if name != "words"} for one in stored]
    if not same or targets[0] != targets[1]:
        raise UsageError(f"{folder} predicts other classes than this run.")
    return other


def _shared(base: list[Measured], texts: list[Measured]) -> list[str]:
    return [name for name in base[0].measures if name in texts[0].measures and name != GRADIENT] if base else []


def _apart(base: list[Measured], texts: list[Measured], name: str) -> Float[np.ndarray, " N"]:
    """Return the divergence of two models in every text."""
    padded = np.zeros((2, len(base), max(len(text.words) for text in base)), np.float32)
    for model, some in enumerate((base, texts)):
        for row, text in enumerate(some):
            padded[model, row, : len(text.words)] = text.measures[name]
    return np.asarray(jensen_shannon(*jnp.asarray(padded)))


def _distance(base: list[Measured], texts: list[Measured]) -> Float[np.ndarray, " N"]:
    """Return the distance of the outputs of two models in every text."""
    if not base:
        return np.zeros(0)
    outputs = [jnp.asarray(np.stack([text.output for text in some])) for some in (base, texts)]
    return np.asarray(total_variation(*outputs))


@in_style
def picture(base: list[Measured], found: dict[str, Any], table: list[dict[str, Any]]) -> Figure:
    """Draw the runs by their mean distances, and the divergence of every text against its largest weight."""
    name = table[0]["of the words"]
    runs = [row for row in table if row["of the words"] == name]
    names = [row["run"] for row in runs]
    legend = [*names, largest.MEDIAN]
    figure, (means, texts) = panels(2, 2.6, legend=legend)
    for at, row in enumerate(runs):
        style = series(at, len(runs)) | {"linestyle": "none"}
        means.plot([row["mean JSD"]], [row["mean change"]], **style)
    top = 1.1 * max(row["mean change"] for row in runs) or 1
    means.set(xlabel=f"mean JSD of {name}", ylabel="mean change of the output", xlim=(0, 0.7), ylim=(0, top))
    most = np.array([text.measures[name].max() for text in base])
    apart = [of["JSD"][name] for of in found.values()]
    labels = [run for run, values in zip(names, apart, strict=True) for _ in values]
    largest.draw(texts, np.tile(most, len(apart)), np.concatenate(apart), labels, names)
    texts.set(ylabel="JSD", ylim=(0, 0.7))
    legend_below(figure, [means, texts], legend)
    return figure
