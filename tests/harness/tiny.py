"""Small encoders, poolers and models, and four texts for them: one of five words, one of one, of three, of none."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.base import devices
from experiments.data.corpus import TextBatch
from experiments.encoders import ENCODERS
from experiments.layers.words import WordEmbedding
from experiments.objectives.classify import Classify
from experiments.poolers import POOLERS
from experiments.run import build, loop
from experiments.run.clock import Clock
from experiments.run.config import default_config
from experiments.run.diagnostics import evaluate
from experiments.run.step import Programs, State, StepBatch

VOCABULARY = 30
LENGTHS = np.array([5, 1, 3, 0])
MASK = np.arange(5) < LENGTHS[:, None]
TOKENS = np.where(MASK, np.random.default_rng(0).integers(2, VOCABULARY, MASK.shape), 0)
STATES = np.random.default_rng(2).normal(size=(4, 5, 8)).astype(np.float32)
SIZES = {"embedding": 8, "features": 8, "hidden": 8, "dropout": 0.3}
OF_ENCODERS = {"heads": 2, "layers": 2, "chunks": 4, "frozen": False}


LARGE = ("adversary", "guided", "multilabel", "mutual_information", "rating", "similarity", "title", "triples")
"""Objectives whose programs take long to compile, or which are much like another one: one of them stands for all."""


def each_objective(names):
    """The names as parameters of a test; of `LARGE` all but the first are slow."""
    mark = pytest.mark.sampled(len(LARGE))
    return pytest.mark.parametrize("name", [pytest.param(name, marks=[mark] * (name in LARGE)) for name in names])


def tiny(options):
    fields = {field.name for field in dataclasses.fields(options)}
    sizes = SIZES | OF_ENCODERS if "vectors" in fields else SIZES
    return dataclasses.replace(options, **{name: size for name, size in sizes.items() if name in fields})


def model_of(encoder: str, pooler: str, compute: str = "float32") -> Classify:
    config = default_config(encoder=encoder, pooler=pooler)
    config = dataclasses.replace(config, encode=tiny(config.encode), pool=tiny(config.pool), compute=compute)
    return build.objective(config, {"words": VOCABULARY, "classes": 4})[0]


def batch_of(encoder: str, tokens=TOKENS, mask=MASK) -> TextBatch:
    """A batch as the encoder reads it: of words, or of sentences of two words."""
    targets, weights = np.arange(len(tokens)) % 4, np.ones(len(tokens), np.float32)
    if ENCODERS[encoder].Options().reads_sentences:
        tokens, mask = by_sentence(np.where(mask, tokens, 0)), by_sentence(mask)
    return jax.tree.map(jnp.asarray, TextBatch(tokens, mask, targets, weights))


def by_sentence(x: np.ndarray) -> np.ndarray:
    """The columns of an array two by two: [B T] -> [B S 2]."""
    return np.pad(x, ((0, 0), (0, x.shape[1] % 2))).reshape(len(x), -1, 2)


class Prepared(NamedTuple):
    """A run's first state and its programs, which take host batches."""

    state: State
    programs: Programs
    term_weights: Mapping[str, float]

    def train(self, state, batch, held_out=None):
        requests = np.zeros(len(batch.weights), np.int32)
        return self.programs.train(state, devices.put_batch(StepBatch(batch, requests, held_out)))

    def evaluate(self, parameters, task, split):
        return evaluate(self.programs.evaluate, parameters, task.batches(split), self.term_weights)[0]


def prepare(config, task) -> Prepared:
    prepared = loop.prepare(config, task)
    programs = Programs.of(prepared.recipe, prepared.noise, prepared.frozen, Clock())
    return Prepared(prepared.state, programs, prepared.term_weights)


def pooler_of(name: str, features: int = 8):
    return POOLERS[name](tiny(POOLERS[name].Options()), features, rngs=nnx.Rngs(0))


def encoder_of(name: str):
    options, rngs = tiny(ENCODERS[name].Options()), nnx.Rngs(0)
    return ENCODERS[name](options, WordEmbedding(options, VOCABULARY, rngs=rngs), rngs=rngs)
