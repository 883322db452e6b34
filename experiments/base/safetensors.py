"""The safetensors format: arrays by name that no reader has to trust, for nothing in it can be executed.

Eight bytes, the length of the header as a little-endian integer; the header, a JSON object from names to dtype, shape
and place; then the numbers, little-endian, row by row, without gaps (https://github.com/huggingface/safetensors).
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.base.errors import DataError
from experiments.base.json_files import object_of

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U8": "|u1"}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"


class Entry(NamedTuple):
    """What a file says of an array."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    stop: int


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


def entries(content: bytes, where: str) -> dict[str, Entry]:
    """Return what a file holds, in the order of the places; arrays that overlap or leave a gap are refused.

    Raises:
        DataError: the file is damaged; the message begins with `where`.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise DataError(f"{where} is cut short: its header is to have {size} bytes.")
    header = object_of(content[8 : 8 + size], where)
    header.pop(_METADATA, None)
    told = {name: _entry(name, value, 8 + size, where) for name, value in header.items()}
    found, end = {}, 8 + size
    for name, entry in sorted(told.items(), key=lambda item: (item[1].start, item[1].stop)):
        size = math.prod(entry.shape) * entry.dtype.itemsize
        if entry.start != end or entry.stop > len(content):
            raise DataError(f"{where}: array {name!r} has no place of its own in the file.")
        if entry.stop - entry.start != size:
            raise DataError(f"{where}: array {name!r} has {entry.stop - entry.start} bytes, its shape asks for {size}.")
        found[name], end = entry, entry.stop
    if end != len(content):
        raise DataError(f"{where} has {len(content) - end} bytes that belong to no array.")
    return found


def _entry(name: str, told: Any, begin: int, where: str) -> Entry:
    """Return what a header tells of an array; the numbers of the file begin at `begin`."""
    match told:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if (
            dtype in DTYPES and all(type(length) is int and length >= 0 for length in shape)
        ):
            return Entry(np.dtype(DTYPES[dtype]), tuple(shape), begin + start, begin + stop)
    raise DataError(f"{where}: its header has no valid dtype, shape and data_offsets of array {name!r}.")


def array(content: bytes, entry: Entry) -> np.ndarray:
    """Return an array of a file, which cannot be written to."""
    return np.frombuffer(memoryview(content)[entry.start : entry.stop], entry.dtype).reshape(entry.shape)
