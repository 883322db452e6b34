"""Pretrained encoders: their numbers, and the states of texts, computed once where the encoder does not change."""

import hashlib
import sys
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from tqdm import tqdm

from experiments.base.contracts import Objective, Task
from experiments.base.errors import UsageError
from experiments.data import pretrained
from experiments.data.corpus import TextBatch
from experiments.data.text_task import TextTask, places_of
from experiments.layers.text_model import TextModel, in_dtype
from experiments.layers.words import WordEmbedding
from experiments.run import build
from experiments.run.config import Config


def read_numbers(objective: Objective, embeddings: list[WordEmbedding], config: Config, task: Task) -> dict[str, Any]:
    """Set the numbers that the configuration takes from elsewhere, and return facts about them for the summary.

    Where training would read the same states in every epoch, batches bring them from now on.
    """
    model = load(objective, config, task.codec)
    found = None if model else build.read_vectors(embeddings, config, task.codec)
    remember_states(objective if config.epochs else None, task)
    return {"vectors_found": found, "pretrained": model}


def load(objective: Objective, config: Config, codec: Any) -> dict[str, str] | None:
    """Set the numbers of pretrained encoders where the configuration names their model; return what was read.

    Raises:
        UsageError: the tokens are not the word pieces of the model.
        DataError: the package is damaged, or the model has other sizes than the configuration.
    """
    source = config.encode.vectors
    encoders = [node for _, node in nnx.iter_graph(objective) if getattr(node, "pretrained", None) == source]
    if not encoders:
        return None
    model = pretrained.read(source, *places_of(config.data))
    for encoder in encoders:
        encoder.load(model)
    if codec.vocabulary.words != pretrained.as_vocabulary(model.pieces).words:
        raise UsageError(f"{source} reads word pieces of its own: give --data.tokens {source}.")
    return {"model": source, "sha256": model.sha256}


def remember_states(objective: Objective | None, task: Task) -> None:
    """Let the batches of a task bring the states of an encoder that is the same at every step, and only of such a one.

    A task that several runs share keeps the states of the last encoder: those of the same one are not computed again.
    """
    if not isinstance(task, TextTask):
        return
    encoder: Any = getattr(objective, "encoder", None)
    if not isinstance(objective, TextModel) or not getattr(encoder, "fixed", False):
        for corpus in task.splits.values():
            corpus.forget()
        return
    graph, state = nnx.split(in_dtype(encoder, objective.compute))
    reader = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        reader.update(np.asarray(leaf).tobytes())

    def read(batch: TextBatch) -> np.ndarray:
        bar.update(int(batch.weights.sum()))
        return np.asarray(jax.device_get(_states(graph, state, batch)))

    texts = sum(map(len, task.splits.values()))
    with tqdm(total=texts, desc="states", unit="texts", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for corpus in task.splits.values():
            corpus.remember(f"{graph} {reader.hexdigest()}", read)


@partial(jax.jit, static_argnums=0)
def _states(graph: Any, state: nnx.State, batch: TextBatch) -> Array:
    return nnx.merge(graph, state)(batch.tokens, batch.mask)[0]
