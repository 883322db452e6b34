"""The contract of the harness: what tasks, encoders, poolers and objectives promise one another.

```
records --task--> batch --objective--> outputs --objective--> terms (summed: the loss), metrics, predictions
                            |
     tokens [B T] --encoder--> states [B T D] --pooler--> pooled [B E]      mask [B T]: True at real tokens
```

A batch is a named tuple, a pytree of arrays whose first axis is that of the examples. It has `weights` [B], 0 at the
empty rows that fill the last batch and 1 elsewhere; its boolean arrays are masks, True at real tokens. Outputs are
arrays by name: `states`, `mask`, `pooled`, `attention`, `logits` and whatever else an objective computes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

Batch: TypeAlias = Any
Outputs: TypeAlias = Mapping[str, Array]
Sizes: TypeAlias = Mapping[str, int | float]


class Mean(NamedTuple):
    """A mean over examples, kept as two sums, so that the means of batches can be added."""

    sum: Float[Array, ""]
    weight: Float[Array, ""]

    @classmethod
    def of(cls, values: Float[Array, "..."], weights: Float[Array, "..."]) -> "Mean":
        """Return the mean of `values` under `weights` of the same shape."""
        return cls((weights * values).sum(), weights.sum())

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; 0 where nothing was counted."""
        return self.sum / jnp.maximum(self.weight, 1)

    def __add__(self, other: "Mean") -> "Mean":  # type: ignore[override]
        return Mean(self.sum + other.sum, self.weight + other.weight)


class Last(NamedTuple):
    """A number that is not averaged: of several, the last one counts."""

    value: Float[Array, ""]

    def __add__(self, other: "Last") -> "Last":  # type: ignore[override]
        return other


@runtime_checkable
class Metrics(Protocol):
    """What metrics are computed from, sums or whole arrays: those of batches are added, then computed once."""

    def __add__(self, other: Any) -> Any:
        """Return the metrics of both sets of examples."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the numbers by name."""
        ...


@runtime_checkable
class Words(Protocol):
    """A vector for each entry of a row: for a word of tokens [B T], for a sentence of tokens [B S W]."""

    features: int

    def __call__(self, tokens: Int[Array, "B T *W"], rngs: nnx.Rngs | None = None) -> Float[Array, "B T D"]:
        """Return the vectors; those of padding are computed too and have no meaning."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Word vectors to states; the states of a text depend neither on padding nor on other texts.

    An encoder whose states are the same at every step, because nothing in it is trained or random, may have `fixed`
    true: they are then computed once. One that is `pretrained` names the model (`experiments.data.pretrained.WHEELS`)
    and has `load`, which sets its numbers to those of the model. One whose units have an order may have `levels`, which
    returns [L B T]: for every layer and token, how much of the text before it ends there (`experiments.run.levels`).
    """

    Options: ClassVar[type]
    """A `layers.words.VectorOptions`, so the options of the word vectors come first."""
    features: int
    """Size of a state."""

    def __init__(self, options: Any, words: Words, *, rngs: nnx.Rngs): ...

    @property
    def causal(self) -> bool:
        """Whether the state of a token depends only on this token and those before it; options may decide."""
        ...

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T *W"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """Return the states, and which of them are real: one state a token with the same mask, or fewer.

        `rngs` brings the noise of training; without it nothing is random. An encoder whose options say
        `reads_sentences` gets tokens and mask [B S W], the words of every sentence.
        """
        ...


@runtime_checkable
class Pooler(Protocol):
    """States to one vector; masked states may hold anything, even NaN.

    A pooler with an exponent has it as `p`. One with attention has `detached`, whether that is a constant of every
    derivative. One whose attention is the softmax of scores may have `scores(states, mask)`, [B T] or [B T H], and then
    takes other scores in their place: `pooler(states, mask, scores)`. One whose tokens weigh in several ways has
    `weights(states, mask, scores)`, with None for its own scores: arrays [B T] or [B T H] by name.
    """

    Options: ClassVar[type]
    features: int
    """Size of the pooled vector."""

    def __init__(self, options: Any, features: int, *, rngs: nnx.Rngs): ...

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B E"], Outputs]:
        """Return one vector a text, and the arrays behind it, as `attention` [B T] or [B T H]."""
        ...


@runtime_checkable
class Parts(Protocol):
    """Makes encoders and poolers as the configuration says, as many as an objective asks for."""

    @property
    def compute(self) -> str:
        """Dtype in which encoders compute."""
        ...

    def words(self, size: str = "words", *, rngs: nnx.Rngs) -> Words:
        """Return new word vectors, as many as the size of this name says."""
        ...

    def encoder(self, words: Words | None = None, *, rngs: nnx.Rngs) -> Encoder:
        """Return a new encoder, of given vectors or with word vectors of its own."""
        ...

    def pooler(self, features: int, name: str = "", *, rngs: nnx.Rngs) -> Pooler:
        """Return a new pooler of states of a size; one of another name, with its defaults, where one is given."""
        ...


@runtime_checkable
class Codec(Protocol):
    """What turns records into batches; it is saved with a run, so that a trained model needs no data set."""

    fields: ClassVar[Mapping[str, tuple[str, ...]] | None]
    """None where a record is a text; else its fields in order, each with the names that its column may have."""

    @property
    def sizes(self) -> Sizes:
        """The numbers that a model's form depends on, by name, as `words` and `classes`."""
        ...

    def encode(self, records: Iterable[Any]) -> Iterator[Batch]:
        """Yield the records, in their order, as batches; targets are not known and 0."""
        ...

    def named(self, record: dict[str, Any], text: Any) -> dict[str, Any]:
        """Return a record of `Objective.records` in which places in the text are what stands there."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return what `Task.codec_of` rebuilds the codec from, as values that JSON can hold."""
        ...


@runtime_checkable
class Task(Protocol):
    """Data: examples and their order, without a loss."""

    Options: ClassVar[type]
    objective: ClassVar[str]
    """The objective that is learned where none is named."""
    steps_per_epoch: int

    @property
    def codec(self) -> Codec:
        """What turns records into batches."""
        ...

    def __init__(self, options: Any): ...

    @classmethod
    def objective_of(cls, options: Any) -> str:
        """Return `objective`, or what options say that are marked `DECIDES_OBJECTIVE`."""
        ...

    @classmethod
    def codec_of(cls, options: Any, stored: dict[str, Any]) -> Codec:
        """Return the codec that a finished run has stored."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return facts about the data for the record: sizes, digests, counts of unusual rows."""
        ...

    def train_batch(self, seed: int, step: int) -> Batch:
        """Return the batch of a step as host arrays: a pure function, so a run can go on from any step."""
        ...

    def train_rows(self, seed: int, step: int) -> list[int]:
        """Return which examples of the training split make the batch of a step, for messages."""
        ...

    def batches(self, split: str) -> Iterator[Batch]:
        """Yield every example of "validation" or "test" once, as host arrays."""
        ...


@runtime_checkable
class Objective(Protocol):
    """What is learned: a `flax.nnx.Module` made of encoders and poolers, its loss terms, metrics and predictions.

    Its arrays are trained (`nnx.Param`), statistics (`nnx.BatchStat`) or fixed. Statistics have no gradient: modules in
    it change them when they are called in training, which flax tells them by `Module.train`. They belong to the state
    of a run, so a checkpoint and a finished run hold them, and an evaluation leaves them as they are. An encoder has
    none: where it computes in another dtype, it is a copy.
    """

    Options: ClassVar[type]
    """The options of the group `head`."""
    needs: ClassVar[tuple[str, ...]]
    """The sizes that the data must have."""
    chosen_by: ClassVar[tuple[str, str]]
    """The metric that decides which validation was the best, and "max" or "min"."""
    shown: ClassVar[dict[str, str]]
    """What progress, plots and reports show, and what it is called there: metrics, also loss terms and scalars."""
    shares: ClassVar[tuple[str, ...]]
    """The metrics that are shares of 1; reports show them in percent."""
    pools: ClassVar[bool]
    """Whether the objective asks for a pooler."""
    contrasts: ClassVar[bool]
    """Whether a text is compared with the others of its batch: what it adds to terms and metrics depends on them."""
    guided: ClassVar[Literal["", "loss", "outputs"]]
    """What needs `guide`, the attention and output of the run `base`, which batches then have: the loss, or all."""

    def __init__(self, options: Any, sizes: Sizes, parts: Parts, *, rngs: nnx.Rngs): ...

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs of a batch; `rngs` brings the noise of training."""
        ...

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Mean]:
        """Return the loss terms; the loss is the sum of their means, each times its weight."""
        ...

    @property
    def p(self) -> Any:
        """The exponent, or exponents, of its poolers; None where they have none."""
        ...

    @property
    def term_weights(self) -> Mapping[str, float]:
        """The weights of loss terms that are not 1."""
        ...

    def scalars(self, outputs: Outputs, batch: Batch) -> Mapping[str, Mean | Last]:
        """Return numbers to log: averages, or last values as the norm of a parameter. They have no gradient."""
        ...

    def metrics(self, outputs: Outputs, batch: Batch) -> Metrics:
        """Return what the metrics of a batch are computed from."""
        ...

    def weights(self, outputs: Outputs) -> Outputs:
        """Return what each token weighs in the pooling, by name: arrays [B T] or [B T H], 0 at padding."""
        ...

    def predict(self, outputs: Outputs) -> Any:
        """Return the predictions as a pytree of arrays [B ...]; traced, for any number of rows."""
        ...

    def records(self, predictions: Any, codec: Any) -> list[dict[str, Any]]:
        """Return one readable record an example from predictions on the host: `{"label": "plant", ...}`."""
        ...


Baseline: TypeAlias = Callable[[type[Task], Any], dict[str, Any]]
"""From a task and its options to facts of a summary: `test`, `validation`, ...; plainer ones by name in `beside`."""
