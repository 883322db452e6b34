"""Parameters on disk, by their dotted names. Nothing here can execute what a file says: no pickle."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.base.errors import DataError
from experiments.base.files import opened, told
from experiments.layers.text_model import leaf_name

PARAMETERS = "parameters.npz"


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
    with told(path.name), opened(path) as file, np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    shapes = {leaf_name(where): leaf.shape for where, leaf in leaves}
    for name in shapes.keys() ^ arrays.keys():
        raise DataError(f"{path.name} {'lacks' if name in shapes else 'has an unexpected'} parameter {name!r}.")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise DataError(f"{path.name}: parameter {name!r} has shape {arrays[name].shape}, expected {shape}.")
    return jax.tree.unflatten(structure, [jax.numpy.asarray(arrays[name]) for name in shapes])
