"""Vectors of words: from a GloVe, fastText or word2vec text file, or from a table that a package carries.

A file is read line by line, and only what the vocabulary needs is kept.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from experiments.base.errors import DataError
from experiments.base.files import lines, opened, unpacked
from experiments.data.archives import names, streams
from experiments.data.fetch import locate
from experiments.data.vector_tables import TABLES, Entries, Vector, parsed

MOST = 2**34
"""Bytes that a file of vectors may hold; none but a line of it is held in memory."""
PACKED = (".gz", ".bz2", ".xz")


def size(source: str) -> int:
    """Return the size of the vectors; of a file, the first line tells."""
    return TABLES[source].size if source in TABLES else _layout(Path(source))[1]


def read(
    source: str, words: Sequence[str], archives: Path | None, cache: Path
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N D"]]:
    """Return the places in `words` of those that have a vector, and the vectors.

    A word has the vector of the first entry that is written like it, or else of the first that is in lower case.

    Raises:
        DataError: the source is malformed, or has none of the words.
    """
    table = TABLES.get(source)
    entries = table.read(locate(table.archive, archives, cache)) if table else _entries(Path(source))
    places = {word: place for place, word in enumerate(words)}
    as_written: dict[int, Vector] = {}
    in_lower_case: dict[int, Vector] = {}
    for word, vector in entries:
        place = places.get(word)
        found = in_lower_case if place is None else as_written
        place = places.get(word.lower()) if place is None else place
        if place is not None and place not in found:
            found[place] = vector()
    found = in_lower_case | as_written
    if not found:
        raise DataError(f"{source} has a vector for none of the {len(words)} words of the vocabulary.")
    return np.fromiter(found, np.int32), np.stack(list(found.values()))


def _entries(path: Path) -> Entries:
    header, length = _layout(path)
    for number, line in _lines(path):
        # From the right and as bytes: a word may hold spaces, and characters that Unicode counts as spaces.
        word, *numbers = line.rsplit(None, length) or [b""]
        if len(numbers) == length:
            yield word.decode(errors="replace"), partial(parsed, numbers, length, f"{path.name}, line {number}")
        elif word and not (header and number == 1):
            raise DataError(f"{path.name}, line {number}: expected a word and {length} numbers.")


def _layout(path: Path) -> tuple[bool, int]:
    """Return whether the first line is a header, "words size", and the size of the vectors."""
    _, line = next(_lines(path), (1, b""))
    fields = line.split()
    header = len(fields) == 2 and all(field.isdigit() and len(field) < 20 for field in fields)
    length = int(fields[1]) if header else len(fields) - 1
    if length < 1:
        raise DataError(f"{path.name}, line 1: expected a word and its numbers, or the number of words and their size.")
    return header, length


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines, numbered from 1, of a plain or packed file, or of one in a zip archive: ARCHIVE.zip/NAME."""
    archive = path if path.suffix == ".zip" else path.parent
    if archive.suffix == ".zip" and archive.is_file():
        held = names(archive)
        name = held[0] if archive == path and len(held) == 1 else path.name
        if name not in held:
            raise DataError(f"{archive} holds {', '.join(held)}: give {archive}/NAME.")
        for _, file in streams(archive, name.__eq__, MOST, MOST):
            yield from lines(file, f"{archive.name}, {name}")
    elif not path.exists():
        raise DataError(f"there is no file of vectors {path}: give one, or random, {', '.join(TABLES)}.")
    else:
        with unpacked(path, MOST) if path.suffix in PACKED else opened(path, MOST) as file:
            yield from lines(file, path.name)
