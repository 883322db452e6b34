"""Small encoders, poolers and models, and four texts for them: one of five words, one of one, of three, of none."""

import dataclasses

import numpy as np
from flax import nnx

from experiments.encoders import ENCODERS
from experiments.layers.text_model import TextClassifier
from experiments.layers.words import WordEmbedding
from experiments.poolers import POOLERS
from experiments.run import build
from experiments.run.config import default_config

VOCABULARY = 30
LENGTHS = np.array([5, 1, 3, 0])
MASK = np.arange(5) < LENGTHS[:, None]
TOKENS = np.where(MASK, np.random.default_rng(0).integers(2, VOCABULARY, MASK.shape), 0)
STATES = np.random.default_rng(2).normal(size=(4, 5, 8)).astype(np.float32)
SIZES = {"embedding": 8, "features": 8, "hidden": 8, "shortest": 1, "longest": 3}


def tiny(options):
    fields = {field.name for field in dataclasses.fields(options)}
    return dataclasses.replace(options, **{name: size for name, size in SIZES.items() if name in fields})


def model_of(encoder: str, pooler: str) -> TextClassifier:
    config = default_config(encoder=encoder, pooler=pooler)
    config = dataclasses.replace(config, encode=tiny(config.encode), pool=tiny(config.pool))
    return build.model(config, VOCABULARY, classes=4)


def pooler_of(name: str, features: int = 8):
    return POOLERS[name](tiny(POOLERS[name].Options()), features, rngs=nnx.Rngs(0))


def encoder_of(name: str):
    options, rngs = tiny(ENCODERS[name].Options()), nnx.Rngs(0)
    return ENCODERS[name](options, WordEmbedding(options, VOCABULARY, rngs=rngs), rngs=rngs)
