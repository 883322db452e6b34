"""Sentence similarity: groups of paraphrases are classes in training; afterwards vectors are compared by their cosine.

The rows of the classes are needed for the loss only. Held-out groups are never trained: their texts are ranked within
their own split, every text as a query, itself left out.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers import margins
from experiments.layers.head import DropoutOptions
from experiments.layers.masked import dropout
from experiments.layers.text_model import TextModel

PLACES = (1, 5, 10)
QUERIES_AT_ONCE = 512
"""Queries whose cosines with all texts are in memory."""


@dataclasses.dataclass(frozen=True)
class SimilarityOptions(DropoutOptions):
    """Unit vectors against a unit row a group, and the margin between the right group and the others."""

    dropout: Annotated[float, Interval("[0, 1)")] = 0.0
    """Dropout rate of the pooled vector."""
    loss: Literal["softmax", "am_softmax", "a_softmax", "simpler_a_softmax", "arcface"] = "am_softmax"
    """The loss: which margin the cosine of the right group must overcome."""
    scale: Annotated[float, Interval("(0, 1000]")] = 30.0
    """Factor s of the cosines in the softmax."""
    margin: Annotated[float, Interval("[0, 1.5]")] = 0.35
    """Margin m: what am_softmax takes off the cosine, and what arcface adds to the angle, in radians (0.5 there)."""
    multiple: Annotated[int, Interval("[1, 8]")] = 4
    """Factor m of the angle in a_softmax; simpler_a_softmax has 4."""

    @property
    def psi(self) -> Callable[[Array], Array]:
        """What takes the place of the cosine of the right group."""
        psi: dict[str, Callable[[Array], Array]] = {
            "softmax": margins.softmax,
            "am_softmax": partial(margins.am_softmax, margin=self.margin),
            "a_softmax": partial(margins.a_softmax, multiple=self.multiple),
            "simpler_a_softmax": margins.simpler_a_softmax,
            "arcface": partial(margins.arcface, margin=self.margin),
        }
        return psi[self.loss]


def ranks(cosines: Callable[[slice], np.ndarray], groups: Int[np.ndarray, " N"]) -> Int[np.ndarray, " Q"]:
    """Return, for every text that is not alone in its group, how many texts of other groups are as near as its nearest.

    0 means that the nearest other text is of the same group. Texts of other groups come first among equals. A text
    that is alone has nothing to find and is no query.

    Args:
        cosines: returns those of some texts, given by their places, with all texts: [B N].
        groups: the group of every text.
    """
    found = [np.zeros(0, int)]
    for start in range(0, len(groups), QUERIES_AT_ONCE):
        part = slice(start, min(start + QUERIES_AT_ONCE, len(groups)))
        near, places = np.asarray(cosines(part)), np.arange(part.start, part.stop)
        same = groups[part, None] == groups
        same[np.arange(len(places)), places] = False
        nearest = np.where(same, near, -np.inf).max(axis=1, keepdims=True)
        ahead = (near >= nearest) & (groups[part, None] != groups)
        found.append(ahead.sum(axis=1)[same.any(axis=1)])
    return np.concatenate(found)


def shares(found: Int[np.ndarray, " Q"]) -> dict[str, float]:
    """Return the share of queries with a text of their group among the nearest 1, 5 and 10; 0 without queries."""
    return {f"top{k}": float(np.mean(found < k)) if len(found) else 0.0 for k in PLACES}


class Vectors(NamedTuple):
    """The vectors of all texts with their groups, for a rank is no sum over batches."""

    vectors: Float[Array, "B D"]
    groups: Int[Array, " B"]
    weights: Float[Array, " B"]

    def __add__(self, other: "Vectors") -> "Vectors":  # type: ignore[override]
        return Vectors(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))  # type: ignore[arg-type]

    def compute(self) -> dict[str, float]:
        """Return the shares of texts whose group is found among the nearest."""
        real = np.asarray(self.weights) > 0
        vectors = np.asarray(self.vectors, np.float64)[real]
        return shares(ranks(lambda part: vectors[part] @ vectors.T, np.asarray(self.groups)[real]))


class Similarity(TextModel):
    """Encoder -> pooler -> unit vector, and in training its cosine with a unit row a group."""

    Options: ClassVar[type] = SimilarityOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "groups")
    chosen_by: ClassVar[tuple[str, str]] = ("top1", "max")
    shown: ClassVar[dict[str, str]] = {f"top{k}": f"top-{k}" for k in PLACES}
    shares: ClassVar[tuple[str, ...]] = tuple(shown)

    def __init__(self, options: SimilarityOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        super().__init__(parts, rngs=rngs)
        self.options = options
        self.groups = int(sizes["groups"])
        self.classes = nnx.Linear(self.pooler.features, self.groups, use_bias=False, rngs=rngs)

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs and `vectors` [B D], the pooled ones at length 1."""
        return {**outputs, "vectors": margins.unit(dropout(outputs["pooled"], self.options.dropout, rngs))}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the loss with a margin, of the texts whose group is trained: that of a held-out text is no class."""
        cosines = outputs["vectors"] @ margins.unit(self.classes.kernel[...], axis=0)
        trained = batch.targets < self.groups
        labels = jnp.where(trained, batch.targets, 0)
        losses = margins.margin_loss(cosines, labels, self.options.psi, self.options.scale)
        return {self.options.loss: Mean.of(losses, batch.weights * trained)}

    def metrics(self, outputs: Outputs, batch: Batch) -> Vectors:
        """Return what the ranks are computed from."""
        return Vectors(outputs["vectors"], batch.targets, batch.weights)

    def predict(self, outputs: Outputs) -> dict[str, Float[Array, "B D"]]:
        """Return the unit vectors."""
        return {"vector": outputs["vectors"]}

    def records(self, predictions: dict[str, Float[np.ndarray, "B D"]], codec: Any) -> list[dict[str, Any]]:
        """Return the vector of every text."""
        return [{"vector": vector.tolist()} for vector in predictions["vector"]]
