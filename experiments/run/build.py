"""From a configuration to the objects of a run; the only place that looks names up."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.base.contracts import Task
from experiments.base.errors import UsageError
from experiments.data import vectors
from experiments.data.text import UNKNOWN, Vocabulary
from experiments.data.text_task import SourceOptions
from experiments.encoders import ENCODERS
from experiments.layers.head import Head
from experiments.layers.text_model import TextClassifier, is_exponent
from experiments.layers.words import RANDOM, WordEmbedding
from experiments.poolers import POOLERS
from experiments.run.config import Config, OptimOptions
from experiments.tasks import TASKS

_STREAMS = ("init", "dropout")


def stream(seed: int, name: str) -> jax.Array:
    """Return the random key of a purpose: the seed folded with the fixed number of the name."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), _STREAMS.index(name))


def task(config: Config) -> Task:
    """Return the task."""
    return TASKS[config.task](config.data)


def model(config: Config, vocabulary_size: int, classes: int) -> TextClassifier:
    """Return the model with its initial parameters."""
    if config.encode.reads_sentences and not getattr(config.data, "sentences", False):
        raise UsageError(f"the encoder {config.encoder} needs the ends of sentences: give --data.sentences.")
    rngs = nnx.Rngs(params=stream(config.seed, "init"))
    words = WordEmbedding(config.encode, vocabulary_size, rngs=rngs)
    try:
        encoder = ENCODERS[config.encoder](config.encode, words, rngs=rngs)
        pooler = POOLERS[config.pooler](config.pool, encoder.features, rngs=rngs)
    except ValueError as error:
        raise UsageError(f"{config.encoder} with {config.pooler}: {error}") from error
    head = Head(config.head, pooler.features, classes, rngs=rngs)
    return TextClassifier(encoder, pooler, head, config.compute)


def read_vectors(model: TextClassifier, config: Config, vocabulary: Vocabulary) -> None:
    """Set the word vectors that the configuration names, and say how many words of the vocabulary have one."""
    source, words = config.encode.vectors, model.words
    if source == RANDOM:
        return
    folders = getattr(config.data, "archives", None), getattr(config.data, "cache", SourceOptions.cache)
    places, table = vectors.read(source, vocabulary.words, *folders)
    if table.shape[1] != words.features:
        raise UsageError(f"{source} has vectors of {table.shape[1]} numbers, the model takes {words.features}.")
    words.fill(places + UNKNOWN + 1, table)
    words.found = len(places) / len(vocabulary.words)
    known = f"{len(places)} of {len(vocabulary.words)} words of the vocabulary ({words.found:.1%})"
    print(f"{source}: vectors of {words.features} numbers for {known}", file=sys.stderr)


def schedule(options: OptimOptions, steps: int) -> optax.Schedule:
    """Return the step size: a linear rise, then a linear descent to zero."""
    rise = round(options.warmup * steps)
    return optax.schedules.join_schedules(
        [
            optax.schedules.linear_schedule(0, options.learning_rate, rise),
            optax.schedules.linear_schedule(options.learning_rate, 0, max(steps - rise, 1)),
        ],
        [rise],
    )


def optimizer(options: OptimOptions, parameters: Any, steps: int) -> optax.GradientTransformation:
    """Return AdamW; exponents learn `p_multiplier` times faster, and neither they nor vectors decay."""
    exponents = jax.tree_util.tree_map_with_path(lambda path, _: is_exponent(path), parameters)
    decayed = jax.tree.map(lambda leaf, exponent: leaf.ndim > 1 and not exponent, parameters, exponents)
    steps = max(steps // options.accumulate, 1)
    update = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(options.weight_decay, mask=decayed),
        optax.masked(optax.scale(options.p_multiplier), exponents),
        optax.scale_by_learning_rate(schedule(options, steps)),
    )
    if options.accumulate == 1:
        return update
    return optax.MultiSteps(update, options.accumulate).gradient_transformation()


def average(options: OptimOptions, parameters: Any, before: Any, step: jax.Array) -> Any:
    """Return the moving average of the parameters after a step, None where there is none.

    Young averages forget faster, at (1 + step) / (10 + step), so that the initial values do not stay in them.
    """
    if before is None:
        return None
    decay = jnp.minimum(options.average, (1 + step) / (10 + step))
    return optax.incremental_update(parameters, before, 1 - decay)
