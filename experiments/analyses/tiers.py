"""What weighs in a recommendation: the reviews of a user and of an item, their sentences, and the words of these."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from experiments.base.contracts import Batch
from experiments.base.errors import UsageError
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.rating_batches import RatingCodec
from experiments.data.rating_task import Rating
from experiments.data.text import PADDING, UNKNOWN
from experiments.run.explanation import shares
from experiments.run.trained import Trained

LONGEST = 60
"""Characters of a text in the table."""


@dataclasses.dataclass(frozen=True)
class TiersOptions:
    """The reviews, sentences and words that weigh most, and the exponent of every tier."""

    most: Annotated[int, Interval("[1, 1000]")] = 5
    """Rows of the table for each side and tier."""
    least: Annotated[int, Interval("[1, 1000000]")] = 20
    """A word that was read less often is left out of the table."""


class Side(NamedTuple):
    """What weighs on one side of the ratings of a batch: shares, which sum to 1 over the last axis."""

    reviews: Float[Array, "B R"]
    sentences: Float[Array, "B R S"]
    words: Float[Array, "B R S W"]


class Tiers:
    """The weight of a unit is its share in the vector of the tier above, times the number of units beside it.

    So 1 is what each would weigh if all weighed the same. The share is that of `experiments.run.explanation`: of the
    sum behind each pooled feature, averaged over the features. Weights of a unit that was read several times are
    averaged.
    """

    Options: ClassVar[type] = TiersOptions
    reads_ratings: ClassVar[bool] = True
    """The examples are ratings (`experiments.data.rating_task.Rating`), not texts."""

    def __init__(self, options: TiersOptions):
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Rating]) -> Findings:
        """Return the units of the largest mean weight for each side and tier, and what weighs in every rating."""
        codec = _codec(trained)
        heaviest: dict[tuple[str, str], dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
        found = []
        for row, sides in _rated(trained, codec, examples):
            found.append(row)
            for side, tier, unit, weight in sides:
                heaviest[side, tier][unit].append(weight)
        exponents = {name: float(np.mean(p)) for name, p in trained.objective.exponents.items()}  # type: ignore[attr-defined]
        table = []
        for (side, tier), weights in heaviest.items():
            enough = self.options.least if tier == "words" else 1
            means = {unit: np.mean(x) for unit, x in weights.items() if len(x) >= enough}
            best = sorted(means, key=lambda unit: (-means[unit], str(unit)))[: self.options.most]
            p = exponents.get(f"{side}_{tier}")
            table += [
                {"side": side, "tier": tier, "p": p, "weight": float(means[unit]), "text": _short(codec, tier, unit)}
                for unit in best
            ]
        facts = {f"p of {name.replace('_', ' ')}": f"{p:.3f}" for name, p in exponents.items()}
        return Findings(table, {"ratings": len(found), **facts}, found)


def _codec(trained: Trained) -> RatingCodec:
    """Return what turns pairs into batches, or raise UsageError where no reviews are read."""
    codec = trained.codec
    if not isinstance(codec, RatingCodec) or not getattr(trained.objective, "towers", None):
        raise UsageError("the analysis needs a model that rates items for users and reads their reviews.")
    if codec.options.leak_own_review:
        raise UsageError("the control reads the review of the rating itself, which is not kept with the model.")
    return codec


def _rated(
    trained: Trained, codec: RatingCodec, examples: Iterable[Rating]
) -> Iterator[tuple[dict[str, Any], list[tuple[str, str, Any, float]]]]:
    """Yield for every rating what weighs in it, as JSON can hold it, and all its units with their weights."""
    graph, state = nnx.split(trained.objective)
    rest = iter(examples)
    while some := list(islice(rest, codec.options.batch_size)):
        reviews = [example.review for example in some]
        (batch,) = codec.encode((review.user, review.item) for review in reviews)
        weighed, predictions = jax.device_get(_weigh(graph, state, batch))
        records = trained.objective.records(predictions, codec)
        for row, review in enumerate(reviews):
            places = codec.library.others(*codec.ids(review.user, review.item), codec.options.most_reviews)
            units, shown = [], {}
            for side, read in zip(("user", "item"), places, strict=True):
                own = Side(*(part[row] for part in weighed[side]))
                units += [(side, *unit) for unit in _units(own, codec.library.tokens[read], read)]
                shown[f"{side}_reviews"] = _shown(codec, own, read)
            names = {"user": review.user, "item": review.item, "rating": review.rating}
            yield {**names, "predicted": records[row]["rating"], **shown}, units


def _units(side: Side, tokens: Int[np.ndarray, "R S W"], places: list[int]) -> Iterator[tuple[str, Any, float]]:
    """Yield every review, sentence and word of one side with its weight."""
    for at, place in enumerate(places):
        yield "reviews", place, float(side.reviews[at] * len(places))
        real = tokens[at] != PADDING
        for line in np.flatnonzero(real.any(axis=1)):
            sentence = tokens[at, line, real[line]].tolist()
            yield "sentences", tuple(sentence), float(side.sentences[at, line] * real.any(axis=1).sum())
            for column, word in enumerate(sentence):
                if word != UNKNOWN:
                    yield "words", word, float(side.words[at, line, column] * len(sentence))


def _shown(codec: RatingCodec, side: Side, places: list[int]) -> list[dict[str, Any]]:
    """Return the reviews of one side, the heaviest first, with the shares of their sentences and words."""
    found = []
    for at in np.argsort(-side.reviews[: len(places)], kind="stable"):
        place, sentences = places[at], []
        for line, words in enumerate(codec.library.tokens[place]):
            count = int((words != PADDING).sum())
            if count:
                shared = side.words[at, line, :count].tolist()
                texts = [_word(codec, word) for word in words[:count]]
                sentences.append(
                    {"share": float(side.sentences[at, line]), "words": [*zip(texts, shared, strict=True)]}
                )
        names = {
            "user": codec.users[codec.library.users[place] - 1],
            "item": codec.items[codec.library.items[place] - 1],
        }
        found.append({**names, "share": float(side.reviews[at]), "sentences": sentences})
    return found


def _short(codec: RatingCodec, tier: str, unit: Any) -> str:
    """Return the beginning of a unit as words."""
    numbers = codec.library.tokens[unit].ravel() if tier == "reviews" else np.atleast_1d(unit)
    text = " ".join(_word(codec, number) for number in numbers if number != PADDING)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3].rstrip()}..."


def _word(codec: RatingCodec, number: int) -> str:
    return "?" if number == UNKNOWN else codec.vocabulary.words[number - UNKNOWN - 1]


@partial(jax.jit, static_argnums=0)
def _weigh(graph: Any, state: nnx.State, batch: Batch) -> tuple[dict[str, Side], Array]:
    """Return what weighs on each side of a batch, and the predictions."""
    objective = nnx.merge(graph, state)
    objective.set_attributes(detached=True, raise_if_not_found=False)
    weighed = {}
    for side, tower in objective.towers.items():
        tokens, mask = getattr(batch, f"{side}_tokens"), getattr(batch, f"{side}_mask")
        words = shares(tower.sentences.pooler, *tower.sentences.states(tokens))
        sentences = shares(tower.reviews.pooler, *tower.reviews.states(tokens))
        reviews = shares(tower.pooler, tower.reviews(tokens), mask.any(axis=(2, 3)))
        weighed[side] = Side(reviews, sentences.reshape(mask.shape[:3]), words.reshape(mask.shape))
    return weighed, objective.predict(objective(batch))
