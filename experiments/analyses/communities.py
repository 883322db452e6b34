"""Communities of texts: the graph of the nearest pooled vectors, and the partition that describes it shortest.

The map equation (Rosvall and Bergstrom, PNAS 2008) is the mean length, in bits, of the name of a step of a random walk,
when modules have names and texts have names that are used again in every module:

    L = plogp(sum_m q_m) - 2 sum_m plogp(q_m) - sum_a plogp(p_a) + sum_m plogp(q_m + sum_{a in m} p_a)

with plogp(x) = x log2 x, p_a the share of the walk at text a, and q_m the share of steps that leave module m. The
library `infomap` (GPL), which no other file imports, searches the partition; its length is checked by this formula.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from experiments.base.errors import DataError, UsageError
from experiments.base.figures import WIDTH, in_style, panels
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example
from experiments.run.trained import Trained

try:
    import infomap
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import adjusted_mutual_info_score
    from sklearn.neighbors import NearestNeighbors
except ImportError:
    infomap = None  # type: ignore[assignment]

TRIALS = 5
"""Starts of a search, the best of which counts."""
NAMED = 12
"""Communities that the picture names, the largest ones."""
AGREE = 1e-6
"""Bits by which the length of the library may differ from the formula."""


@dataclasses.dataclass(frozen=True)
class CommunityOptions:
    """Communities in the graph of the nearest pooled vectors, by their cosine."""

    neighbours: Annotated[int, Interval("[1, 1000]")] = 10
    """Texts that each text is linked to: those whose vectors have the largest cosine with its own."""
    seeds: Annotated[int, Interval("[1, 100]")] = 5
    """Searches from other random numbers, between which the partitions are compared."""
    drawn: Annotated[int, Interval("[0, 100000]")] = 1500
    """Texts in the picture, spread evenly over those that were asked about; 0 draws none."""


class Links(NamedTuple):
    """An undirected graph, every link once."""

    one: Int[np.ndarray, " N"]
    other: Int[np.ndarray, " N"]
    weight: Float[np.ndarray, " N"]


class Communities:
    """Modules, saving over one module, agreement with the labels, and stability over seeds."""

    Options: ClassVar[type] = CommunityOptions

    def __init__(self, options: CommunityOptions):
        if infomap is None:
            raise UsageError('communities need infomap and scikit-learn: python -m pip install -e ".[communities]"')
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return a row on the vectors of the run."""
        chosen = list(examples)
        if len(chosen) <= self.options.neighbours:
            found = f"{len(chosen)} texts for {self.options.neighbours} neighbours each"
            raise DataError(f"found {found}: ask about more texts, or give a smaller --ask.neighbours.")
        vectors = trained.pooled(one.text for one in chosen)
        links = neighbour_graph(vectors, self.options.neighbours)
        partitions = [partition(links, len(chosen), seed) for seed in range(1, self.options.seeds + 1)]
        lengths = [code_length(links, modules) for modules in partitions]
        best = partitions[int(np.argmin(lengths))]
        one_module = code_length(links, np.zeros(len(chosen), int))
        labels = [one.target for one in chosen]
        row = {
            "encoder": trained.config.encoder,
            "pooler": trained.config.pooler,
            "texts": len(chosen),
            "communities": int(best.max()) + 1,
            "bits a step": min(lengths),
            "bits in one module": one_module,
            "saving": 1 - min(lengths) / one_module,
            "AMI with the labels": _agreement(labels, best) if isinstance(labels[0], str) else None,
            "labels": len(set(labels)) if isinstance(labels[0], str) else None,
            "AMI between seeds": _stability(partitions),
        }
        members: list[dict[str, Any]] = [
            {"text": one.text, "target": one.target, "community": int(community)}
            for one, community in zip(chosen, best, strict=True)
        ]
        title = f"{trained.config.task}, {row['encoder']}, {row['pooler']}: {row['communities']} communities"
        figure = picture(vectors, links, best, labels, self.options.drawn, title) if self.options.drawn else None
        return Findings([row], {"texts": len(chosen), "links": len(links.one)}, members, figure)


def neighbour_graph(vectors: Float[np.ndarray, "N D"], neighbours: int) -> Links:
    """Return the links of every text with its nearest, weighted by their cosine; those of no positive cosine are none.

    A link stands once, whether one of its texts is among the nearest of the other, or both are.
    """
    search = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute")
    distances, nearest = search.fit(np.float64(vectors)).kneighbors()
    pairs = np.stack([np.repeat(np.arange(len(vectors)), neighbours), nearest.ravel()])
    pairs, first = np.unique(np.sort(pairs, axis=0), axis=1, return_index=True)
    cosines = 1 - distances.ravel()[first]
    kept = cosines > 0
    return Links(pairs[0, kept], pairs[1, kept], cosines[kept])


def partition(links: Links, texts: int, seed: int) -> Int[np.ndarray, " N"]:
    """Return the module of every text in the shortest description of two levels that is found.

    A text without links is a module of its own.

    Raises:
        DataError: the length that the library states is not that of the partition.
    """
    search = infomap.Infomap(two_level=True, silent=True, seed=seed, num_trials=TRIALS)
    search.add_links(np.stack([links.one, links.other, links.weight], axis=1).astype(np.float64))
    result = search.run()
    modules = -np.arange(1, texts + 1)
    for text, module in result.modules().items():
        modules[text] = module
    _, modules = np.unique(modules, return_inverse=True)
    length = code_length(links, modules)
    if abs(length - result.codelength) > AGREE:
        raise DataError(f"infomap states {result.codelength} bits, but its partition has {length}.")
    return modules


def code_length(links: Links, modules: Int[np.ndarray, " N"]) -> float:
    """Return L of an undirected graph, in bits a step."""
    ends = np.concatenate([links.one, links.other])
    weights = np.concatenate([links.weight, links.weight]) / (2 * links.weight.sum())
    leaving = modules[ends] != np.roll(modules[ends], len(links.one))
    visits = np.bincount(ends, weights, len(modules))
    exits = np.bincount(modules[ends[leaving]], weights[leaving], modules.max() + 1)
    inside = exits + np.bincount(modules, visits)
    return float(_plogp(exits.sum()) - 2 * _plogp(exits) - _plogp(visits) + _plogp(inside))


def _plogp(x: Any) -> float:
    """Return sum x log2 x, where 0 counts for nothing."""
    positive = np.ravel(x)[np.ravel(x) > 0]
    return float((positive * np.log2(positive)).sum())


def _agreement(one: Any, other: Any) -> float:
    return float(adjusted_mutual_info_score(one, other))


def _stability(partitions: list[Int[np.ndarray, " N"]]) -> float | None:
    """Return the mean agreement of all pairs of partitions; None where there is one."""
    pairs = [_agreement(one, other) for at, one in enumerate(partitions) for other in partitions[:at]]
    return float(np.mean(pairs)) if pairs else None


@in_style
def picture(
    vectors: Float[np.ndarray, "N D"],
    links: Links,
    modules: Int[np.ndarray, " N"],
    labels: list[Any],
    drawn: int,
    title: str,
) -> Figure:
    """Draw texts and links in a plane (t-SNE of the vectors), by community; the largest have their frequent label."""
    chosen = np.unique(np.linspace(0, len(vectors) - 1, min(drawn, len(vectors))).round().astype(int))
    unit = vectors[chosen] / np.maximum(np.linalg.norm(vectors[chosen], axis=1, keepdims=True), 1e-12)
    perplexity = min(30, max(len(chosen) - 1, 1) / 3)
    start = PCA(2, random_state=0).fit_transform(unit)
    start /= max(start[:, 0].std(), 1e-12) * 1e4
    places = TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(unit)
    figure, (axes,) = panels(1, WIDTH, width=WIDTH)
    at = np.full(len(vectors), -1)
    at[chosen] = np.arange(len(chosen))
    both = (at[links.one] >= 0) & (at[links.other] >= 0)
    ends = np.stack([places[at[links.one[both]]], places[at[links.other[both]]]], axis=1)
    axes.plot(*np.moveaxis(np.insert(ends, 2, np.nan, axis=1).reshape(-1, 2), 1, 0), color="0.85", lw=0.4, zorder=1)
    order = {module: place for place, (module, _) in enumerate(Counter(modules.tolist()).most_common())}
    colours = [order[module] % 20 for module in modules[chosen]]
    axes.scatter(places[:, 0], places[:, 1], c=colours, cmap="tab20", s=6, zorder=2)
    for module in [*order][:NAMED]:
        inside = modules[chosen] == module
        if inside.any():
            name, _ = Counter(str(labels[text]) for text in np.flatnonzero(modules == module)).most_common(1)[0]
            axes.annotate(name, np.median(places[inside], axis=0), ha="center", zorder=3)
    axes.set(title=title, xticks=[], yticks=[])
    return figure
