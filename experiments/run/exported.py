"""A trained model as a folder of safe formats, which `loader.py` there reads with jax and numpy alone."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from experiments.base.errors import UsageError
from experiments.base.options import NOT_DECISIVE, from_dict, leaves, marks, to_dict
from experiments.base.safetensors import encode
from experiments.data import pieces
from experiments.data.text import SENTENCE_END, WORD
from experiments.data.text_task import TextCodec
from experiments.layers.text_model import leaf_name
from experiments.run import program
from experiments.run.config import CONFIG, NAMES, Config, default_config, to_json
from experiments.run.program import form_of, parameters_of
from experiments.run.trained import LOADER, PROGRAMS, Trained
from experiments.storage import manifest, run_folder
from experiments.storage.run_folder import VOCABULARY, as_json
from experiments.storage.safetensors import SAFETENSORS

PIECES = "pieces.py"
"""A copy of `experiments.data.pieces`, in the export of a model that reads word pieces."""
NO_PLACE = "(?!)"
"""A pattern that matches nowhere: the end of a sentence where a model reads no sentences."""


def write_export(trained: Trained, folder: Path) -> dict[str, int]:
    """Write a model into a folder, new or empty, which appears whole or not at all; return the sizes of its files.

    Raises:
        UsageError: the folder is in use, or the model is none that the loader can read.
    """
    try:
        import flatbuffers  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError('an export needs flatbuffers: python -m pip install -e ".[export]"') from None
    files = _files(trained)
    with run_folder.appearing(folder) as partial:
        for name, content in files.items():
            (partial / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        (partial / manifest.MANIFEST).write_text(manifest.text_for(partial, {}), encoding="utf-8")
        return {path.name: path.stat().st_size for path in sorted(partial.iterdir())}


def _files(trained: Trained) -> dict[str, bytes | str]:
    """Return the files of an export by name."""
    codec, parameters = _codec(trained), parameters_of(trained.objective)
    if trained.objective.guided == "outputs":
        raise UsageError(f"a model of {trained.config.objective} needs another one for its weights: it has no export.")
    if other := [name for name, array in parameters.items() if array.dtype != np.float32]:
        raise UsageError(f"the parameter {other[0]} has the type {parameters[other[0]].dtype}, expected float32.")
    programs, files = [], {}
    for width in codec.widths:
        name = f"program_{width}.bin"
        found = program.exported(form_of(trained.objective, codec.empty(width)))
        files[name] = bytes(found.serialize())
        programs.append({"width": width, "file": name, **_facts(trained, found, files[name])})
    facts = {
        "batch_size": codec.options.batch_size,
        "word": WORD.pattern,
        "end": SENTENCE_END.pattern if codec.options.sentences else NO_PLACE,
        "pieces": codec.options.tokens != "words",
        "shortest": codec.options.shortest,
        "names": _names(trained, codec),
        "predicted": [name for name, _, _ in programs[0]["outputs"] if name != "pooled"],
        "platforms": [*found.platforms],
        "programs": programs,
    }
    return {
        CONFIG: to_json(portable(trained.config)),
        VOCABULARY: as_json(codec.to_json()),
        SAFETENSORS: encode({name: np.asarray(array) for name, array in parameters.items()}),
        PROGRAMS: as_json(facts),
        LOADER: Path(__file__).with_name(LOADER).read_bytes(),
        **({PIECES: Path(pieces.__file__).read_bytes()} if codec.options.tokens != "words" else {}),
        **files,
    }


def _facts(trained: Trained, found: export.Exported, content: bytes) -> dict[str, Any]:
    """Return what the loader has to know of a program beside its file: where its module lies in it, what goes in."""
    count = len(parameters_of(trained.objective))
    inputs = [[str(aval.dtype), [*aval.shape[1:]]] for aval in found.in_avals[count:]]
    start = content.find(found.mlir_module_serialized)
    outputs = jax.tree_util.tree_leaves_with_path(jax.tree.unflatten(found.out_tree, found.out_avals))
    return {
        "inputs": inputs,
        "outputs": [[leaf_name(path), str(aval.dtype), [*aval.shape[1:]]] for path, aval in outputs],
        "module": [start, start + len(found.mlir_module_serialized)],
        "version": found.calling_convention_version,
    }


def _codec(trained: Trained) -> TextCodec:
    """Return what turns texts into batches, or raise UsageError where the task has no texts."""
    if not isinstance(trained.codec, TextCodec):
        raise UsageError(f"the task {trained.config.task} has no texts, but they are what an export reads.")
    return trained.codec


def _names(trained: Trained, codec: TextCodec) -> list[str]:
    """Return what the numbers are called that are predicted of a text: the classes, the tags, or numbers by name.

    The numbers of a vector are called by its name and their place: vector.0, vector.1, ...
    """
    predictions = next(trained.answers([""]))["predictions"]
    if isinstance(predictions, dict) and all(array.ndim <= 2 for array in predictions.values()):
        places = {name: range(array.shape[1]) if array.ndim == 2 else [""] for name, array in predictions.items()}
        return [f"{name}.{place}".rstrip(".") for name in sorted(places) for place in places[name]]
    if isinstance(predictions, np.ndarray) and predictions.dtype == np.float32:
        names = getattr(codec.targets, "names", ()) if predictions.ndim == 2 else ()
        if predictions.ndim == 1:
            names = tuple(trained.objective.records(predictions, codec)[0])
        if len(names) == predictions[0].size:
            return [*names]
    raise UsageError(f"the objective {trained.config.objective} predicts what an export has no names for.")


def portable(config: Config) -> Config:
    """Return the configuration without what is of one machine only: places and devices."""
    values = to_dict(config)
    for path, hint, value in leaves(config):
        if NOT_DECISIVE in marks(hint) or isinstance(value, Path):
            *groups, name = path.split(".")
            place = values
            for group in groups:
                place = place[group]
            del place[name]
    return from_dict(default_config(*(getattr(config, name) for name in NAMES)), values)
