"""Run folders of models as they are before training, made at once: commands over runs need no more."""

from pathlib import Path

import numpy as np
from flax import nnx

from experiments.run import build
from experiments.run.config import CONFIG, parse_args, to_json
from experiments.run.trained import Trained
from experiments.storage import manifest
from experiments.storage.parameters import PARAMETERS, save_parameters
from experiments.storage.run_folder import SEALED, SUMMARY, VOCABULARY, as_json, passes
from tests.harness.conftest import TINY


def untrained(*options: str, scale: float = 20.0) -> Trained:
    """A toy model whose word vectors are large enough for texts to differ."""
    config = parse_args([*TINY, *options])
    codec = build.task(config).codec
    objective, (words,) = build.objective(config, codec.sizes)
    words.table.embedding[...] *= np.float32(scale)
    return Trained(config, objective, codec)


def saved(trained: Trained, folder: Path) -> Path:
    """The folder of a run with this model."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(to_json(trained.config))
    (folder / VOCABULARY).write_text(as_json(trained.codec.to_json()))
    save_parameters(folder / PARAMETERS, nnx.state(trained.objective))
    (folder / SUMMARY).write_text(as_json({SEALED: True}))
    (folder / manifest.MANIFEST).write_text(manifest.text_for(folder, {}, passes))
    return folder
