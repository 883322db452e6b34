"""Batches that carry what another run says of their texts, for the objectives that learn from one."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from experiments.base.contracts import Batch, Task
from experiments.base.errors import UsageError
from experiments.data.text_task import TextCodec
from experiments.layers.masked import by_token

AnyArray: TypeAlias = Array | np.ndarray


class Guide(NamedTuple):
    """What the base says of the texts of a batch."""

    attention: Float[AnyArray, "B T"]
    """Its weights of the tokens, 0 at padding; heads are averaged."""
    output: Float[AnyArray, "B C"]
    """The probabilities that it predicts."""


class GuidedBatch(NamedTuple):
    """A batch of texts (`experiments.data.corpus.TextBatch`) with its guide."""

    tokens: Int[AnyArray, "B T"]
    mask: Bool[AnyArray, "B T"]
    targets: Int[AnyArray, "B"]
    weights: Float[AnyArray, "B"]
    guide: Guide


class Base:
    """The model that guides."""

    def __init__(self, objective: Any, codec: Any, guided: Any):
        """Take the objective and the codec of the base, and the codec of what is guided, which must be the same."""
        if not isinstance(guided, TextCodec) or codec.to_json() != guided.to_json() or guided.options.sentences:
            raise UsageError("--head.base: the run has other words or classes than the data, or reads sentences.")
        self.graph, self.state = nnx.split(objective)
        jax.eval_shape(partial(_guide, self.graph), self.state, guided.empty(guided.widths[0]))  # or it raises

    def __call__(self, batch: Batch) -> GuidedBatch:
        """Return a batch of host arrays with its guide."""
        guide = Guide(*jax.device_get(_guide(self.graph, self.state, jax.device_put(batch))))
        return GuidedBatch(batch.tokens, batch.mask, batch.targets, batch.weights, guide)

    @property
    def digest(self) -> str:
        """A fingerprint of the model."""
        content = hashlib.sha256()
        for leaf in jax.tree.leaves(self.state):
            content.update(np.asarray(leaf).tobytes())
        return content.hexdigest()[:16]


@partial(jax.jit, static_argnums=0)
def _guide(graph: Any, state: nnx.State, batch: Batch) -> tuple[Array, Array]:
    objective = nnx.merge(graph, state)
    outputs = objective(batch)
    if "attention" not in outputs or outputs["attention"].shape[:2] != batch.mask.shape or "logits" not in outputs:
        raise UsageError("--head.base: the run has no attention of words, or predicts no classes.")
    return by_token(outputs["attention"]), objective.predict(outputs)


class GuidedTask:
    """A task (`experiments.base.contracts.Task`) whose batches have a guide."""

    def __init__(self, task: Task, base: Base):
        self.task, self.base = task, base
        self.splits = getattr(task, "splits", {})
        self.codec, self.steps_per_epoch, self.train_rows = task.codec, task.steps_per_epoch, task.train_rows

    def describe(self) -> dict[str, Any]:
        """Return the facts about the data, and the fingerprint of the base: no run goes on with another one."""
        return self.task.describe() | {"base": self.base.digest}

    def train_batch(self, seed: int, step: int) -> GuidedBatch:
        """Return the batch of a step."""
        return self.base(self.task.train_batch(seed, step))

    def batches(self, split: str) -> Iterator[GuidedBatch]:
        """Yield every example of a split once."""
        return map(self.base, self.task.batches(split))


class GuidedCodec(TextCodec):
    """A codec whose batches have a guide."""

    def __init__(self, codec: Any, base: Base):
        super().__init__(codec.options, codec.vocabulary, codec.targets)
        self.base = base

    def encode(self, records: Iterable[str | Sequence[str]]) -> Iterator[Any]:
        """Yield the texts, in their order, as batches with a guide."""
        return map(self.base, super().encode(records))
