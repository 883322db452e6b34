"""Trees without supervision: the levels of words, read as distances, against the parses of the Sentiment Treebank.

Unlabelled F1 over the constituents of a sentence (Shen et al., ICLR 2019), averaged over sentences. Punctuation is no
leaf, and neither single leaves nor the whole sentence are constituents; a sentence without others is left out. The
parses are binary and were made by a program, not by people.
"""

import dataclasses
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from experiments.base.errors import DataError, UsageError
from experiments.base.findings import Findings
from experiments.data import trees
from experiments.data.fetch import locate
from experiments.data.text_task import TextCodec, places_of
from experiments.data.trees import Cut, Span
from experiments.run import build
from experiments.run.levels import has_levels, levels
from experiments.run.trained import Trained

DEV, TEST = "validation", "test"
DRAWS = 5
"""Number of random trees that are drawn for each sentence."""


@dataclasses.dataclass(frozen=True)
class TreeOptions:
    """Trees from the master forget gates of each layer, against the parses of the Stanford Sentiment Treebank."""

    trees: Path | None = None
    """The archive of the trees; when not given, it lies with the archives of the run, or is fetched."""
    cut: Cut = "paper"
    """How distances cut a sentence: paper into [left, [word, right]], which favours branches to the right; even into
    [left, right]."""


class Sentence(NamedTuple):
    """A sentence of the treebank without its punctuation."""

    leaves: list[list[str]]
    """The words of every leaf: "well-known" is one leaf and two words."""
    spans: set[Span]


Distances: TypeAlias = list[Float[np.ndarray, "L N"]]
"""For every sentence the distance before each leaf in every layer."""


class Trees:
    """F1 of each layer, of the untrained model of the same seed, and of trees that do not depend on the words.

    The layer is chosen on the development split; only for it is the test split read, once.
    """

    Options: ClassVar[type] = TreeOptions
    reads_examples: ClassVar[bool] = False
    """The sentences are those of the treebank, whatever the task of the run."""

    def __init__(self, options: TreeOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Any] = ()) -> Findings:
        """Return a row for every kind of tree."""
        if not isinstance(trained.codec, TextCodec) or not has_levels(trained.objective):
            raise UsageError("trees need one encoder whose units are ordered: train one with --encoder onlstm.")
        path = self.options.trees or locate(trees.ARCHIVE, *places_of(trained.config.data))
        sentences = {split: _sentences(path, split) for split in (DEV, TEST)}
        table = [
            {"tree": name, "layer": "", "dev F1": _mean(make, sentences[DEV]), "test F1": _mean(make, sentences[TEST])}
            for name, make in baselines(self.options.cut).items()
        ]
        fresh, embeddings = build.objective(trained.config, trained.codec.sizes)
        build.read_vectors(embeddings, trained.config, trained.codec)
        rows, _ = self._rows("untrained", trained._replace(objective=fresh), sentences)
        table += rows
        rows, found = self._rows("this run", trained, sentences)
        table += rows
        facts = {"cut": self.options.cut, "sentences of dev": len(sentences[DEV]), "of test": len(sentences[TEST])}
        return Findings(table, facts, found)

    def _rows(
        self, name: str, trained: Trained, sentences: dict[str, list[Sentence]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return a row for each layer of a model, and the trees of the test split by the layer that dev chooses."""
        dev = distances_of(trained, sentences[DEV])
        layers = len(dev[0])
        on_dev = [float(np.mean(self._scores(dev, layer, sentences[DEV]))) for layer in range(layers)]
        best = int(np.argmax(on_dev))
        test = distances_of(trained, sentences[TEST])
        scores = self._scores(test, best, sentences[TEST])
        rows: list[dict[str, Any]] = [
            {"tree": name, "layer": layer + 1, "dev F1": on_dev[layer], "test F1": ""} for layer in range(layers)
        ]
        rows[best]["test F1"] = float(np.mean(scores))
        return rows, [
            {
                "found": trees.brackets(_leaves(one), trees.tree_of(distances[best], self.options.cut)),
                "expected": trees.brackets(_leaves(one), [(0, len(one.leaves)), *one.spans]),
                "F1": score,
            }
            for one, distances, score in zip(sentences[TEST], test, scores, strict=True)
        ]

    def _scores(self, distances: Distances, layer: int, sentences: list[Sentence]) -> list[float]:
        return [
            score(trees.tree_of(found[layer], self.options.cut), one)
            for found, one in zip(distances, sentences, strict=True)
        ]


def _sentences(path: Path, split: str) -> list[Sentence]:
    """Return the sentences that have constituents."""
    found = [Sentence(*trees.spoken(tree)) for tree in trees.read(path, split)]
    if not (kept := [one for one in found if one.spans]):
        raise DataError(f"{path.name}: no sentence of {trees.FILES[split]} has a constituent inside of it.")
    return kept


def _leaves(one: Sentence) -> list[str]:
    return ["-".join(words) for words in one.leaves]


def score(found: Iterable[Span], one: Sentence) -> float:
    """Return F1 of the constituents that were found in a sentence."""
    return trees.f1(trees.inner(found, len(one.leaves)), one.spans)


def baselines(cut: Cut) -> dict[str, Callable[[int], list[list[Span]]]]:
    """Return functions, by name, from a number of leaves to trees that do not depend on the words."""
    random = np.random.default_rng(0)

    def drawn(cut: Cut) -> Callable[[int], list[list[Span]]]:
        return lambda leaves: [trees.tree_of(random.random(leaves), cut) for _ in range(DRAWS)]

    found: dict[str, Callable[[int], list[list[Span]]]] = {
        "left-branching": lambda leaves: [[(0, end) for end in range(2, leaves)]],
        "right-branching": lambda leaves: [[(start, leaves) for start in range(1, leaves - 1)]],
        "balanced": lambda leaves: [trees.balanced(leaves)],
        "random": drawn("even"),
    }
    return found if cut == "even" else found | {"random, cut as in the paper": drawn(cut)}


def _mean(make: Callable[[int], list[list[Span]]], sentences: list[Sentence]) -> float:
    return float(np.mean([score(spans, one) for one in sentences for spans in make(len(one.leaves))]))


def distances_of(trained: Trained, sentences: Iterable[Sentence]) -> Distances:
    """Return the levels of the first words of all leaves; no sentence is cut, however long."""
    codec: Any = trained.codec
    texts = [[[word for leaf in one.leaves for word in leaf]] for one in sentences]
    starts = [np.cumsum([0] + [len(leaf) for leaf in one.leaves[:-1]]) for one in sentences]
    widest = max(len(words) for [words] in texts)
    places, found = iter(starts), []
    for batch in codec.corpus(texts, codec.unknown_targets(len(texts)), [widest]).in_order():
        read = levels(trained.objective, batch)
        found += [read[:, row, at] for row, at in enumerate(islice(places, int(batch.weights.sum())))]
    return found
