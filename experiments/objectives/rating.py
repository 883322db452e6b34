"""Ratings by three tiers of attention: words make sentences, sentences reviews, and reviews a user and an item.

After Wu, Wu, Liu and Huang, "Hierarchical User and Item Representation with Three-Tier Attention for Recommendation"
(NAACL 2019). All tiers have masks here, and the review of the rating itself is never among those that are read.
"""

import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Batch, Last, Mean, Outputs, Parts, Sizes, Words
from experiments.base.errors import UsageError
from experiments.base.options import Interval
from experiments.layers.head import Head, HeadOptions
from experiments.layers.text_model import Model, in_dtype
from experiments.layers.tier import Tier

SIDES = ("user", "item")
Numbers: TypeAlias = Float[Array, " B"] | Float[np.ndarray, " B"]
SPREAD = 0.1  # standard deviation of the vectors of users and items at the start


@dataclasses.dataclass(frozen=True)
class RatingOptions(HeadOptions):
    """The poolers of the tiers, and what is known of a user and of an item beside the texts."""

    word_pooler: str = ""
    """What makes the vector of a sentence, a name in experiments/poolers with its defaults; --pooler if not given."""
    sentence_pooler: str = ""
    """What makes the vector of a review, likewise."""
    review_pooler: str = ""
    """What makes the vector of a user and of an item, likewise."""
    ids: Annotated[int, Interval("[0, 1024]")] = 16
    """Size of a vector of its own that every user and every item of the training split has."""
    biases: bool = True
    """Add a number of its own for every user and every item of the training split."""
    texts: bool = True
    """Read the reviews; without them, only vectors and numbers of users and items are left."""
    ridge: Annotated[float, Interval("[0, 100000]")] = 8.0
    """Penalty of the squares of these numbers and vectors, against the sum of the squared errors of all ratings."""


class Errors(NamedTuple):
    """Sums over ratings, from which the errors are computed; those of batches are added."""

    squares: Float[Array, ""]
    absolutes: Float[Array, ""]
    targets: Float[Array, ""]
    """Sum of the ratings, less a constant."""
    target_squares: Float[Array, ""]
    """Sum of the squares of the ratings, less the same constant."""
    ratings: Float[Array, ""]

    @classmethod
    def of(cls, predictions: Numbers, targets: Numbers, weights: Numbers, near: float) -> "Errors":
        """Return the sums of some ratings; `near` is a number near their mean, which keeps the squares small."""
        error, apart = predictions - targets, targets - near
        summed: tuple[Any, ...] = (error**2, abs(error), apart, apart**2, jnp.ones_like(weights))
        return cls(*((weights * x).sum() for x in summed))

    def __add__(self, other: "Errors") -> "Errors":  # type: ignore[override]
        return Errors(*(one + two for one, two in zip(self, other, strict=True)))

    def compute(self) -> dict[str, float]:
        """Return mean squared error, its root, mean absolute error, and R2: 0 where the ratings are all the same."""
        squares, absolutes, targets, target_squares, ratings = (np.float64(x) for x in self)
        mse, variance = squares / ratings, target_squares / ratings - (targets / ratings) ** 2
        r2 = 1 - mse / variance if variance > 1e-12 else 0.0
        return {"mse": float(mse), "rmse": float(np.sqrt(mse)), "mae": float(absolutes / ratings), "r2": float(r2)}


class Tower(nnx.Module):
    """The reviews of one side to one vector: three tiers, of which the first two have an encoder of their own."""

    def __init__(self, options: RatingOptions, words: Words, parts: Parts, *, rngs: nnx.Rngs):
        encoder = parts.encoder(words, rngs=rngs)
        self.sentences = Tier(encoder, parts.pooler(encoder.features, options.word_pooler, rngs=rngs))
        encoder = parts.encoder(self.sentences, rngs=rngs)
        self.reviews = Tier(encoder, parts.pooler(encoder.features, options.sentence_pooler, rngs=rngs), axes=2)
        self.pooler = parts.pooler(self.reviews.features, options.review_pooler, rngs=rngs)
        self.features = self.pooler.features

    @property
    def exponents(self) -> dict[str, Array]:
        """The exponents of the tiers whose pooler has one, by what the tier pools."""
        poolers = {"words": self.sentences.pooler, "sentences": self.reviews.pooler, "reviews": self.pooler}
        return {tier: pooler.p for tier, pooler in poolers.items() if hasattr(pooler, "p")}

    def __call__(
        self, tokens: Int[Array, "B R S W"], mask: Bool[Array, "B R S W"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "B D"]:
        """Return the vector of every row; 0 where there are no reviews."""
        vectors = self.reviews(jnp.where(mask, tokens, 0), rngs)
        pooled, _ = self.pooler(vectors, mask.any(axis=(2, 3)))
        return pooled.astype(jnp.float32)


class Rating(Model):
    """The rating is a linear function of the product of two vectors, plus a number a user and a number an item.

    Each vector is that of the texts beside that of the id. A name that was not trained has neither id nor number.
    """

    Options: ClassVar[type] = RatingOptions
    needs: ClassVar[tuple[str, ...]] = ("review_words", "users", "items", "ratings")
    chosen_by: ClassVar[tuple[str, str]] = ("mse", "min")
    shown: ClassVar[dict[str, str]] = {"mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R2"}

    def __init__(self, options: RatingOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        self.compute, self.options = parts.compute, options
        self.mean, self.scale, self.ratings = sizes["mean"], sizes["scale"], sizes["ratings"]
        words = parts.words("review_words", rngs=rngs)
        towers = {side: Tower(options, words, parts, rngs=rngs) for side in SIDES if options.texts}
        self.towers = nnx.Dict(towers)
        counts = {side: int(sizes[f"{side}s"]) for side in SIDES}
        start = nnx.initializers.normal(SPREAD)
        ids = {side: nnx.Embed(n, options.ids, embedding_init=start, rngs=rngs) for side, n in counts.items()}
        self.ids = nnx.Dict(ids if options.ids else {})
        zeros = nnx.initializers.zeros
        numbers = {side: nnx.Embed(n, 1, embedding_init=zeros, rngs=rngs) for side, n in counts.items()}
        self.biases = nnx.Dict(numbers if options.biases else {})
        read = towers["user"].features if options.texts else 0
        if not read + options.ids:
            raise UsageError(
                "without texts and ids there is nothing to multiply: leave out --head.no-texts or --head.ids."
            )
        self.head = Head(options, read + options.ids, 1, rngs=rngs)

    @property
    def exponents(self) -> dict[str, Array]:
        """The exponents by side and tier: `user_words` and so on."""
        towers = ((side, tower.exponents.items()) for side, tower in self.towers.items())
        return {f"{side}_{tier}": p for side, found in towers for tier, p in found}

    @property
    def p(self) -> Array | None:
        """All exponents in the order of `exponents`, flat; None where there are none."""
        found = [jnp.ravel(p) for p in self.exponents.values()]
        return jnp.concatenate(found) if found else None

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of the penalty."""
        return {"penalty": self.options.ridge}

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return `pooled` [B D], the product of the vectors of user and item, and `rating` [B], in the given units."""
        vectors, numbers = [], jnp.zeros(batch.weights.shape, jnp.float32)
        for side in SIDES:
            names = getattr(batch, f"{side}s")
            parts = []
            if side in self.towers:
                tokens, mask = (getattr(batch, f"{side}_{kind}") for kind in ("tokens", "mask"))
                parts.append(in_dtype(self.towers[side], self.compute)(tokens, mask, rngs))
            if side in self.ids:
                parts.append(_rows(self.ids[side], names))
            if side in self.biases:
                numbers += _rows(self.biases[side], names)[:, 0]
            vectors.append(jnp.concatenate(parts, axis=-1))
        product = vectors[0] * vectors[1]
        standardised = self.head(product, rngs)[:, 0] + numbers
        mask = jnp.concatenate([getattr(batch, f"{side}_mask").any(axis=(2, 3)) for side in SIDES], axis=1)
        return {"pooled": product, "mask": mask, "rating": self.mean + self.scale * standardised}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the squared error in units of the variance of the training split, and the penalty."""
        errors = jnp.square((outputs["rating"] - batch.targets) / self.scale)
        tables = [*self.biases.values(), *self.ids.values()]
        squares = sum((jnp.square(table.embedding[...]).sum() for table in tables), jnp.zeros(()))
        penalty = Mean(squares, jnp.asarray(self.ratings, jnp.float32))
        return {"squared_error": Mean.of(errors, batch.weights), "penalty": penalty}

    def scalars(self, outputs: Outputs, batch: Batch) -> dict[str, Last]:
        """Log the exponent of every tier, its mean where there are several."""
        return {f"p_{name}": Last(jnp.mean(p)) for name, p in self.exponents.items()}

    def metrics(self, outputs: Outputs, batch: Batch) -> Errors:
        """Return what the errors are computed from."""
        return Errors.of(outputs["rating"], batch.targets, batch.weights, self.mean)

    def predict(self, outputs: Outputs) -> Float[Array, " B"]:
        """Return the ratings."""
        return outputs["rating"]

    def records(self, predictions: Float[np.ndarray, " B"], codec: Any) -> list[dict[str, Any]]:
        """Return the rating of every pair."""
        return [{"rating": float(number)} for number in predictions]


def _rows(table: nnx.Embed, names: Int[Array, " B"]) -> Float[Array, "B D"]:
    """Return the rows of a table; 0 where a name was not trained."""
    return jnp.where(names[:, None] > 0, table(names), 0)
