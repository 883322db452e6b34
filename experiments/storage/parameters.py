"""Parameters on disk, by their dotted names. Nothing here can execute what a file says: no pickle."""

import io
import os
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.base import files
from experiments.base.errors import DataError
from experiments.layers.text_model import leaf_name

PARAMETERS = "parameters.npz"
HEADER = 2**16
"""Bytes that an array may have in a file beside its numbers."""


def save_parameters(path: Path, parameters: nnx.State) -> None:
    """Write every parameter, frozen ones too, under its dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    arrays: dict[str, Any] = {leaf_name(where): np.asarray(leaf) for where, leaf in leaves}
    partial = path.with_name(f".{path.name}.partial")  # a hidden name, which no manifest is about
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def most_bytes(expected: nnx.State) -> int:
    """Return the most bytes that a file of parameters like these can have."""
    return sum(leaf.nbytes + HEADER for leaf in jax.tree.leaves(expected)) + HEADER


def parse_parameters(content: bytes, where: str, expected: nnx.State) -> nnx.State:
    """Return the parameters that a file holds; nothing is read of an array before its header is found to be right."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    wanted = {leaf_name(path): leaf for path, leaf in leaves}
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DataError(f"{where} cannot be read: it is no archive of arrays, and a pickle is never read.")
    with files.located(where), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.namelist()
        names = {name.removesuffix(".npy") for name in members}
        if len(names) != len(members):
            raise DataError(f"{where} holds a parameter twice.")
        check_names(where, wanted.keys(), names)
        arrays = [_array(archive, where, name, leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, arrays)


def check_names(where: str, wanted: Set[str], found: Set[str]) -> None:
    """Raise DataError naming the first parameter that is missing or not expected."""
    for name in sorted(wanted ^ found):
        raise DataError(f"{where} {'lacks' if name in wanted else 'has an unexpected'} parameter {name!r}.")


def check_like(where: str, name: str, shape: tuple[int, ...], dtype: np.dtype, like: Any) -> None:
    """Raise DataError where a parameter has another shape or type than the model's."""
    if shape != like.shape:
        raise DataError(f"{where}: parameter {name!r} has shape {shape}, expected {like.shape}.")
    if dtype != like.dtype:
        raise DataError(f"{where}: parameter {name!r} has the type {dtype}, expected {like.dtype}.")


def _array(archive: zipfile.ZipFile, where: str, name: str, like: Any) -> jax.Array:
    """Return one array, after its header was compared with `like`."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
    if dtype.hasobject:
        raise DataError(f"{where} cannot be read: parameter {name!r} is a pickle.")
    check_like(where, name, shape, dtype, like)
    if archive.getinfo(f"{name}.npy").file_size > like.nbytes + HEADER:
        raise DataError(f"{where}: parameter {name!r} has more bytes than its shape {shape}.")
    with archive.open(f"{name}.npy") as file:
        return jax.numpy.asarray(np.lib.format.read_array(file, allow_pickle=False))
