"""Triples (subject, predicate, object) of a text: first the subjects, then predicates and objects given each subject.

P(s, p, o) = P(s) P(p, o | s), after the extraction programs of Su (2019, "half pointers, half tags"): for every word a
probability that a subject begins and one that a subject ends there; for every subject, predicate and word the same for
an object. A begin goes with the nearest end. Three poolings take part: of the text as context (the sentence vector), of
the text for a gate before every predicate, and of the words of the subject.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Batch, Mean, Outputs, Parts, Sizes
from experiments.base.options import Interval
from experiments.layers import spans
from experiments.layers.head import DropoutOptions
from experiments.layers.masked import dropout
from experiments.layers.spans import NOWHERE
from experiments.layers.text_model import TextModel
from experiments.layers.triple_sets import TripleSets
from experiments.layers.words import WrittenWords

SHAPE_FEATURES = 16


@dataclasses.dataclass(frozen=True)
class TriplesOptions(DropoutOptions):
    """Tags of subjects, then of the objects of every predicate; and how they are read."""

    hidden: Annotated[int, Interval("[1, 4096]")] = 128
    """Hidden units of both taggers."""
    reach: Annotated[int, Interval("[1, 1024]")] = 16
    """Distances from the subject, in words, that have a vector of their own; farther words share the last one."""
    sentence_pooler: str = ""
    """Pooler of the sentence vector; that of --pooler when not given, else a pooler by name, at its defaults."""
    gate_pooler: str = ""
    """Pooler before the gates of the predicates; as above."""
    subject_pooler: str = ""
    """Pooler of the words of a subject; as above."""
    begin: Annotated[float, Interval("(0, 1)")] = 0.4
    """A subject or object begins at the words whose probability is above this."""
    end: Annotated[float, Interval("(0, 1)")] = 0.2
    """A subject or object ends at the nearest word whose probability is above this."""
    subjects: Annotated[int, Interval("[1, 64]")] = 8
    """Subjects of a text at most: in training the first ones, afterwards the most probable ones."""
    most: Annotated[int, Interval("[1, 256]")] = 24
    """Triples that are read of a text at most, the most probable first."""
    kinds: Annotated[float, Interval("[0, 100]")] = 1.0
    """Weight of the loss of the types of words."""


class Triples(TextModel):
    """Encoder -> tags of subjects and types of words; with a pooled subject -> tags of objects, a predicate each."""

    Options: ClassVar[type] = TriplesOptions
    needs: ClassVar[tuple[str, ...]] = ("words", "predicates", "kinds")
    chosen_by: ClassVar[tuple[str, str]] = ("f1", "max")
    shown: ClassVar[dict[str, str]] = {
        "f1": "F1",
        "typed_f1": "typed F1",
        "seen_f1": "F1 of seen triples",
        "unseen_f1": "F1 of unseen triples",
    }
    shares: ClassVar[tuple[str, ...]] = tuple(shown)

    def __init__(self, options: TriplesOptions, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs):
        words = WrittenWords(parts.words(rngs=rngs), SHAPE_FEATURES, rngs=rngs)
        super().__init__(parts, words, options.sentence_pooler, rngs=rngs)
        self.options = options
        self.predicates, self.kinds = int(sizes["predicates"]), int(sizes["kinds"])
        features, hidden = self.encoder.features, options.hidden
        self.gate_pooler = parts.pooler(features, options.gate_pooler, rngs=rngs)
        self.subject_pooler = parts.pooler(features, options.subject_pooler, rngs=rngs)
        self.gate = nnx.Linear(self.gate_pooler.features, self.predicates, rngs=rngs)
        self.first = nnx.Linear(features + self.pooler.features, hidden, rngs=rngs)
        self.tags = nnx.Linear(hidden, 2 + 1 + self.kinds, rngs=rngs)
        self.second = nnx.Linear(features, hidden, rngs=rngs)
        self.context = nnx.Linear(self.pooler.features + self.subject_pooler.features, hidden, rngs=rngs)
        self.distance = nnx.Embed(2 * options.reach + 1, hidden, rngs=rngs)
        self.objects = nnx.Linear(hidden, 2 * self.predicates, rngs=rngs)

    @property
    def p(self) -> Any:
        """The exponents of the poolers of sentence vector, gates and subject, those that have one; else None."""
        poolers = (self.pooler, self.gate_pooler, self.subject_pooler)
        found = [jnp.ravel(pooler.p) for pooler in poolers if hasattr(pooler, "p")]
        return jnp.concatenate(found) if found else None

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of the types."""
        return {"kinds": self.options.kinds}

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs of the model, the logits of gates, subjects and types, and of the objects of mentions.

        `gates` [B P], `subjects` [B T 2], `kinds` [B T 1 + C] with the type none first, `objects` [B N T P 2] for
        subjects of the targets and, where these are few, mentions that are no subject.
        """
        written = batch._replace(tokens=jnp.stack([batch.tokens, batch.shapes], axis=-1))
        outputs = self.read(written, rngs)
        rate, states = self.options.dropout, outputs["states"].astype(jnp.float32)
        outputs["states"], outputs["pooled"] = dropout(states, rate, rngs), dropout(outputs["pooled"], rate, rngs)
        gate, _ = self.gate_pooler(outputs["states"], outputs["mask"])
        wide = jnp.broadcast_to(outputs["pooled"][:, None], (*states.shape[:2], self.pooler.features))
        tags = self.tags(jax.nn.relu(self.first(jnp.concatenate([outputs["states"], wide], axis=-1))))
        outputs |= {"gates": self.gate(dropout(gate, rate, rngs)), "subjects": tags[..., :2], "kinds": tags[..., 2:]}
        return {**outputs, "objects": self.object_logits(outputs, self.trained_mentions(batch))}

    def trained_mentions(self, batch: Batch) -> Int[Array, "B N 2"]:
        """Return the mentions whose objects are trained: those that are no subject teach that there may be none."""
        return spans.different(batch.targets[..., spans.SUBJECT], self.options.subjects)

    def object_logits(self, outputs: Outputs, subjects: Int[Array, "B K 2"]) -> Float[Array, "B K T P 2"]:
        """Return the logits of begin and end of the objects of subjects, given by first and last word."""
        states, mask = outputs["states"], outputs["mask"]
        B, K, (_, T, D) = *subjects.shape[:2], states.shape
        each = jnp.broadcast_to(states[:, None], (B, K, T, D)).reshape(B * K, T, D)
        subject, _ = self.subject_pooler(each, spans.inside(subjects, mask).reshape(B * K, T))
        sentence = jnp.broadcast_to(outputs["pooled"][:, None], (B, K, self.pooler.features))
        context = self.context(jnp.concatenate([sentence, subject.reshape(B, K, -1)], axis=-1))
        reach = self.options.reach
        near = self.distance(jnp.clip(spans.distances(subjects, T), -reach, reach) + reach)
        hidden = jax.nn.relu(self.second(states)[:, None] + context[:, :, None] + near)
        return self.objects(hidden).reshape(*hidden.shape[:3], self.predicates, 2)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the binary cross entropies of the tags and the cross entropy of the types, summed over a text."""
        rows, mask = batch.targets, outputs["mask"]
        subjects = optax.sigmoid_binary_cross_entropy(outputs["subjects"], spans.subject_tags(rows, mask))
        given = self.trained_mentions(batch)
        tags = spans.object_tags(rows, given, mask, self.predicates)
        objects = gated_cross_entropy(outputs["objects"], outputs["gates"][:, None, None, :, None], tags)
        kinds = optax.softmax_cross_entropy_with_integer_labels(outputs["kinds"], spans.kinds(rows, mask))
        losses = {
            "subjects": (subjects.sum(axis=-1) * mask).sum(axis=-1),
            "objects": (objects.sum(axis=(-1, -2)) * spans.reached(given, mask)).sum(axis=(-1, -2)),
            "kinds": (kinds * mask).sum(axis=-1),
        }
        return {name: Mean.of(loss, batch.weights) for name, loss in losses.items()}

    def metrics(self, outputs: Outputs, batch: Batch) -> TripleSets:
        """Return the triples of the texts, those that are found, and those that are read from the right tags."""
        rows, mask = batch.targets, outputs["mask"]
        right = self.read_triples(
            spans.subject_tags(rows, mask),
            lambda subjects: spans.object_tags(rows, subjects, mask, self.predicates),
            jax.nn.one_hot(spans.kinds(rows, mask), 1 + self.kinds),
            mask,
        )
        found = self.predict(outputs)["triples"]
        return TripleSets.of(rows, found, right["triples"], batch.known, batch.forms, batch.weights)

    def predict(self, outputs: Outputs) -> dict[str, Array]:
        """Return `triples` [B N 7], rows as those of the targets, `NOWHERE` where there is none, and `probability`."""

        def objects(subjects: Int[Array, "B K 2"]) -> Float[Array, "B K T P 2"]:
            gates = jax.nn.sigmoid(outputs["gates"])[:, None, None, :, None]
            return gates * jax.nn.sigmoid(self.object_logits(outputs, subjects))

        return self.read_triples(
            jax.nn.sigmoid(outputs["subjects"]), objects, jax.nn.log_softmax(outputs["kinds"]), outputs["mask"]
        )

    def read_triples(
        self,
        subjects: Float[Array, "B T 2"],
        objects: Callable[[Int[Array, "B K 2"]], Float[Array, "B K T P 2"]],
        kinds: Float[Array, "B T C"],
        mask: Bool[Array, "B T"],
    ) -> dict[str, Array]:
        """Return the triples that probabilities of begin and end say, and of each the product of the four.

        Args:
            subjects: probabilities of subjects.
            objects: from subjects to the probabilities of their objects.
            kinds: a score a type of every word, none first; a mention has the type of the largest sum.
            mask: which words are real.
        """
        begin, end = self.options.begin, self.options.end
        span, chance = spans.read(subjects, mask, begin, end, self.options.subjects)
        tags = objects(span).transpose(0, 1, 3, 2, 4)
        B, K, P, T, _ = tags.shape
        real = jnp.broadcast_to(mask[:, None, None], (B, K, P, T)) & (span[:, :, :1, None] != NOWHERE)
        others, shares = spans.read(tags, real, begin, end, min(self.options.most, T))
        joint = (chance[:, :, None, None] * shares).reshape(B, -1)
        probability, place = jax.lax.top_k(joint, min(self.options.most, joint.shape[1]))
        subject, predicate = place // (P * others.shape[3]), place // others.shape[3] % P
        subject = jnp.take_along_axis(span, subject[..., None], axis=1)
        object_ = jnp.take_along_axis(others.reshape(B, -1, 2), place[..., None], axis=1)
        types = [spans.kind(kinds, each)[..., None] for each in (subject, object_)]
        rows = jnp.concatenate([subject, types[0], predicate[..., None], object_, types[1]], axis=-1)
        return {"triples": jnp.where(probability[..., None] > 0, rows, NOWHERE), "probability": probability}

    def records(self, predictions: dict[str, np.ndarray], codec: Any) -> list[dict[str, Any]]:
        """Return the triples of every text; subject and object by the places of their first and last word."""
        targets = codec.targets
        return [
            {
                "triples": [
                    {
                        "subject": row[:2].tolist(),
                        "predicate": targets.predicates[row[3]],
                        "object": row[4:6].tolist(),
                        "subject_type": targets.kinds[row[2]],
                        "object_type": targets.kinds[row[6]],
                        "probability": float(probability),
                    }
                    for row, probability in zip(rows, probabilities, strict=True)
                    if row[0] != NOWHERE
                ]
            }
            for rows, probabilities in zip(predictions["triples"], predictions["probability"], strict=True)
        ]


def gated_cross_entropy(
    logits: Float[Array, "*S"], gates: Float[Array, "*G"], tags: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """Return -log q or -log(1 - q), as the tag says, of q = sigmoid(logit) sigmoid(gate), without rounding to 0 or 1.

    1 - q = q (e^-logit + e^-gate + e^(-logit - gate)).
    """
    log_q = jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(gates)
    log_rest = log_q + jnp.logaddexp(jnp.logaddexp(-logits, -gates), -logits - gates)
    return -jnp.where(tags > 0, log_q, log_rest)
