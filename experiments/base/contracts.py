"""The shapes that the parts of the harness agree on; every part is one file and one table row.

```
text --task--> tokens [B T] --encoder--> states [B T D] --pooler--> pooled [B E] --head--> logits [B C] --task--> loss
               mask   [B T] --encoder--> mask   [B T] -----^        True at what is real, false at padding
```
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.data.text import Vocabulary

Intermediates: TypeAlias = Mapping[str, Array]


class Batch(NamedTuple):
    """Texts of one length bucket. `weights` is 0 at the empty rows that fill the last batch of a bucket, else 1."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    labels: Int[Array, " B"]
    weights: Float[Array, " B"]


@runtime_checkable
class Words(Protocol):
    """A vector for each thing in a row: for a word of tokens [B T], for a sentence of tokens [B T W]."""

    features: int

    def __call__(self, tokens: Int[Array, "B T *W"], rngs: nnx.Rngs | None = None) -> Float[Array, "B T D"]:
        """Return the vectors; padding is computed too and means nothing."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """What `words` say of tokens, to states; the states of a text depend neither on padding nor on other texts."""

    Options: ClassVar[type]
    """A `layers.VectorOptions`: the options of the word vectors come first."""
    features: int

    def __init__(self, options: Any, words: Words, *, rngs: nnx.Rngs): ...

    def __call__(
        self, tokens: Int[Array, "B T *W"], mask: Bool[Array, "B T"], rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """Return the states, and which of them are real: one a token with the same mask, or fewer with their own.

        `rngs` brings the noise of training; without it nothing is random.
        """
        ...


@runtime_checkable
class Pooler(Protocol):
    """States to one vector; masked states may hold anything, even NaN. A pooler with an exponent shows it as `p`."""

    Options: ClassVar[type]
    features: int

    def __init__(self, options: Any, features: int, *, rngs: nnx.Rngs): ...

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B E"], Intermediates]:
        """Return one vector a text, and what is worth looking at, as `attention` [B T] or [B T H]."""
        ...


class Metrics(Protocol):
    """Sums over examples: batches are merged by adding, the numbers come at the end."""

    def __add__(self, other: Any) -> Any:
        """Return the sums over both sets of examples."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the numbers by name."""
        ...


class Task(Protocol):
    """Examples, their order, the loss and the metrics."""

    Options: ClassVar[type]
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    steps_per_epoch: int
    chosen_by: str
    """The metric that decides which validation was the best; larger is better."""

    def __init__(self, options: Any): ...

    def describe(self) -> dict[str, Any]:
        """Return facts about the data for the record: sizes, digests, counts of unusual rows."""
        ...

    def train_batch(self, seed: int, step: int) -> Batch:
        """Return the batch of a step: a pure function, so a run can go on from any step."""
        ...

    def train_rows(self, seed: int, step: int) -> list[int]:
        """Return which texts of the training split make the batch of a step, for messages."""
        ...

    def evaluation_batches(self, split: str) -> Iterator[Batch]:
        """Yield every example of "validation" or "test" once."""
        ...

    def loss(self, logits: Float[Array, "B C"], batch: Batch) -> Float[Array, ""]:
        """Return the mean loss over the examples of a batch."""
        ...

    def metrics(self, logits: Float[Array, "B C"], batch: Batch) -> Metrics:
        """Return the sums of a batch."""
        ...
