"""From a configuration to the objects of a run; the only place that looks names up."""

import sys
from typing import Any

import jax
from flax import nnx
from tqdm import tqdm

from experiments.base.contracts import Encoder, Objective, Pooler, Sizes, Task, Words
from experiments.base.errors import UsageError, unknown
from experiments.data import vectors
from experiments.data.text import UNKNOWN, Vocabulary
from experiments.data.text_task import SourceOptions
from experiments.encoders import ENCODERS
from experiments.layers.words import RANDOM, WordEmbedding
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.run.config import Config
from experiments.tasks import TASKS

_STREAMS = ("init", "dropout")
FEW = 100
"""Texts of a split: an accuracy of a half is known to 10 % from so many, with 95 % confidence."""


def stream(seed: int, name: str) -> jax.Array:
    """Return the random key of a purpose: the seed folded with the fixed number of the name."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), _STREAMS.index(name))


def task(config: Config) -> Task:
    """Return the task."""
    return TASKS[config.task](config.data)


def few_texts(task: Task) -> str:
    """Return the sentence on splits that are too small for their scores to mean much; nothing where there are none."""
    splits: dict[str, Any] = getattr(task, "splits", {})
    counts = {split: len(texts) for split, texts in splits.items() if split != "train"}
    few = " and ".join(f"{count} texts for {split}" for split, count in counts.items() if count < FEW)
    return f"only {few}: with fewer than {FEW}, an accuracy may be off by 10 % and more by chance." if few else ""


class ConfiguredParts:
    """Makes the encoder and the pooler of a configuration; see `experiments.base.contracts.Parts`."""

    def __init__(self, config: Config, sizes: Sizes):
        self.compute = config.compute
        self.embeddings: list[WordEmbedding] = []
        """The word vectors of all encoders that were made."""
        self._config = config
        self._sizes = sizes

    def words(self, size: str = "words", *, rngs: nnx.Rngs) -> WordEmbedding:
        """Return new word vectors, as many as the size of this name says."""
        embedding = WordEmbedding(self._config.encode, int(self._sizes[size]), rngs=rngs)
        self.embeddings.append(embedding)
        return embedding

    def encoder(self, words: Words | None = None, *, rngs: nnx.Rngs) -> Encoder:
        """Return a new encoder, of given word vectors or of its own."""
        words = self.words(rngs=rngs) if words is None else words
        return ENCODERS[self._config.encoder](self._config.encode, words, rngs=rngs)

    def pooler(self, features: int, name: str = "", *, rngs: nnx.Rngs) -> Pooler:
        """Return a new pooler of states of the given size, or another row of the table, at its defaults."""
        if name and name not in POOLERS:
            raise unknown("pooler", name, POOLERS)
        options = POOLERS[name].Options() if name else self._config.pool
        return POOLERS[name or self._config.pooler](options, features, rngs=rngs)


def objective(config: Config, sizes: Sizes) -> tuple[Objective, list[WordEmbedding]]:
    """Return the objective with its initial parameters, and the word vectors in it."""
    kind = OBJECTIVES[config.objective]
    lacking = [name for name in kind.needs if name not in sizes]
    if lacking:
        fitting = [name for name, kind in OBJECTIVES.items() if set(kind.needs) <= sizes.keys() and not kind.guided]
        raise UsageError(
            f"the objective {config.objective} needs {' and '.join(lacking)}, which the task {config.task} has not: "
            f"choose --objective {' or '.join(fitting)}."
        )
    reads_sentences = config.encode.reads_sentences
    if reads_sentences != getattr(config.data, "sentences", False):
        advice = "give --data.sentences" if reads_sentences else "leave out --data.sentences"
        advice = advice if hasattr(config.data, "sentences") else f"choose another one for the task {config.task}"
        raise UsageError(f"the encoder {config.encoder} reads {_SHAPES[reads_sentences]}: {advice}.")
    parts, rngs = ConfiguredParts(config, sizes), nnx.Rngs(params=stream(config.seed, "init"))
    try:
        model: Any = kind(config.head, sizes, parts, rngs=rngs)
    except ValueError as error:
        raise UsageError(f"{config.encoder} with {config.pooler}: {error}") from error
    model.eval()  # a call leaves a model as it is; the step of training alone says otherwise
    return model, parts.embeddings


_SHAPES = {True: "batches of sentences", False: "batches of words"}


def read_vectors(embeddings: list[WordEmbedding], config: Config, codec: Any) -> float | None:
    """Set the word vectors that the configuration names; return the share of the vocabulary that has one, and say it.

    None where all word vectors are random.
    """
    source = config.encode.vectors
    if source == RANDOM:
        return None
    vocabulary: Vocabulary = codec.vocabulary
    folders = getattr(config.data, "archives", None), getattr(config.data, "cache", SourceOptions.cache)
    places, table = vectors.read(source, vocabulary.words, *folders)
    for words in embeddings:
        if table.shape[1] != words.features:
            raise UsageError(f"{source} has vectors of {table.shape[1]} numbers, the model takes {words.features}.")
        words.fill(places + UNKNOWN + 1, table)
    found = len(places) / len(vocabulary.words)
    known = f"{len(places)} of {len(vocabulary.words)} words of the vocabulary ({found:.1%})"
    tqdm.write(f"{source}: vectors of {table.shape[1]} numbers for {known}", file=sys.stderr)  # above the bar
    return found
