"""Parameters on disk, and a run folder back to a model. Nothing here can execute what a file says: no pickle."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments.base.errors import DataError
from experiments.base.json_files import read_object
from experiments.data.corpus import Corpus
from experiments.data.text import Vocabulary
from experiments.layers.text_model import TextClassifier, leaf_name
from experiments.run import build
from experiments.run.config import CONFIG, Config, from_json

PARAMETERS, VOCABULARY = "parameters.npz", "vocabulary.json"


def save_parameters(path: Path, parameters: nnx.State) -> None:
    """Write every parameter, frozen ones too, under its dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    arrays: dict[str, Any] = {leaf_name(where): np.asarray(leaf) for where, leaf in leaves}
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def load_parameters(path: Path, expected: nnx.State) -> nnx.State:
    """Read parameters whose names and shapes are those of `expected`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read: {error}") from None
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    shapes = {leaf_name(where): leaf.shape for where, leaf in leaves}
    for name in shapes.keys() ^ arrays.keys():
        raise DataError(f"{path.name} {'lacks' if name in shapes else 'has an unexpected'} parameter {name!r}.")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise DataError(f"{path.name}: parameter {name!r} has shape {arrays[name].shape}, expected {shape}.")
    return jax.tree.unflatten(structure, [jax.numpy.asarray(arrays[name]) for name in shapes])


class Run(NamedTuple):
    """A trained model with all that its use needs."""

    config: Config
    model: TextClassifier
    vocabulary: Vocabulary
    labels: tuple[str, ...]

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the class of every text."""
        encoded = [self.vocabulary.encode(self.config.data.words_of(text)) for text in texts]
        corpus = Corpus(encoded, [0] * len(texts), [self.config.data.max_len], len(texts))
        batch = next(corpus.in_order())
        logits, _ = self.model(batch.tokens, batch.mask)
        return [self.labels[index] for index in np.asarray(logits).argmax(-1)]


def load_run(folder: Path) -> Run:
    """Rebuild the model of a run from its folder alone."""
    config = from_json((folder / CONFIG).read_bytes())
    stored = read_object(folder / VOCABULARY)
    vocabulary, labels = Vocabulary(stored["words"]), tuple(stored["labels"])
    model = build.model(config, len(vocabulary), len(labels))
    nnx.update(model, load_parameters(folder / PARAMETERS, nnx.state(model)))
    return Run(config, model, vocabulary, labels)
