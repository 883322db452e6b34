"""The safetensors format: arrays by name that no reader has to trust, for nothing in it can be executed.

Eight bytes, the length of the header as a little-endian integer; the header, a JSON object from names to dtype, shape
and place; then the numbers, little-endian, row by row, without gaps (https://github.com/huggingface/safetensors).
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import object_of
from experiments.layers.text_model import leaf_name
from experiments.storage.parameters import check_like, check_names

SAFETENSORS = "parameters.safetensors"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U8": "|u1"}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays in the form of the format; the numbers begin at a multiple of eight bytes."""
    header, pieces, end = {}, [], 0
    for name, array in sorted(arrays.items()):
        kind = _NAMES[array.dtype.newbyteorder("<")]
        pieces.append(array.astype(DTYPES[kind], copy=False).tobytes())
        start, end = end, end + len(pieces[-1])
        header[name] = {"dtype": kind, "shape": [*array.shape], "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def parse(content: bytes, where: str, expected: nnx.State) -> nnx.State:
    """Return the parameters that a file of the format holds: those whose names, shapes and types are as expected."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    wanted = {leaf_name(path): leaf for path, leaf in leaves}
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise DataError(f"{where} is cut short: its header is to have {size} bytes.")
    header = object_of(content[8 : 8 + size], where)
    header.pop(_METADATA, None)
    check_names(where, wanted.keys(), header.keys())
    numbers, end = memoryview(content)[8 + size :], 0
    with files.located(where):
        # In the order of their places: arrays that overlap or leave a gap are refused.
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
            check_like(where, name, shape, dtype, wanted[name])
            if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(numbers):
                raise DataError(f"{where}: parameter {name!r} has no place of its own in the file.")
            end = stop
    if end != len(numbers):
        raise DataError(f"{where} has {len(numbers) - end} bytes that belong to no parameter.")
    return jax.tree.unflatten(structure, [_array(numbers, header[name]) for name in wanted])


def _array(numbers: memoryview, entry: Mapping[str, Any]) -> jax.Array:
    start, stop = entry["data_offsets"]
    found = np.frombuffer(numbers[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return jax.numpy.asarray(found)
