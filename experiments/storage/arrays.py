"""Rows of numbers written to a file as they come, so that few of them need be kept: .npy or Parquet by its ending."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from experiments.base.errors import UsageError
from experiments.storage.run_folder import appearing_path

Rows = Float[np.ndarray, "N D"]
GROUP = 4096
"""Rows of a row group of a Parquet file, which are in memory together."""


@contextmanager
def row_writer(path: Path, features: int) -> Iterator[Callable[[Rows], None]]:
    """Give a function that adds rows to a file of float32 [N D].

    The file appears whole, when the block is left without an error, or not at all.
    """
    with appearing_path(path) as partial, partial.open("wb") as file, KINDS[path.suffix](file, features) as write:

        def checked(rows: Rows) -> None:
            if rows.shape[1:] != (features,):
                raise ValueError(f"expected rows of {features} numbers, got the shape {rows.shape}.")
            write(np.ascontiguousarray(rows, "<f4"))

        yield checked


@contextmanager
def _npy(file: BinaryIO, features: int) -> Iterator[Callable[[Rows], None]]:
    """Write a header, the rows, and the header again: NumPy leaves room in it for any number of rows."""
    count = 0

    def header() -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (count, features)}
        np.lib.format.write_array_header_1_0(file, about)

    def write(rows: Rows) -> None:
        nonlocal count
        file.write(rows.tobytes())
        count += len(rows)

    header()
    yield write
    file.seek(0)
    header()


@contextmanager
def _parquet(file: BinaryIO, features: int) -> Iterator[Callable[[Rows], None]]:
    """Write one column, `vector`, of lists of equal length; a row group is written when it is full."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UsageError('a .parquet file needs pyarrow: python -m pip install -e ".[parquet]"') from None
    schema = arrow.schema([arrow.field("vector", arrow.list_(arrow.float32(), features), nullable=False)])
    waiting: list[Rows] = []

    def flush() -> None:
        numbers = arrow.array(np.concatenate([*waiting, np.empty((0, features), "<f4")]).ravel())
        waiting.clear()
        vectors = arrow.FixedSizeListArray.from_arrays(numbers, features)
        writer.write_table(arrow.Table.from_arrays([vectors], schema=schema), row_group_size=GROUP)

    def write(rows: Rows) -> None:
        waiting.append(rows)
        if sum(map(len, waiting)) >= GROUP:
            flush()

    writer = parquet.ParquetWriter(file, schema, use_dictionary=False)  # numbers seldom repeat
    try:
        yield write
        flush()
        writer.close()
    finally:  # after an error it must not write when it is collected
        with suppress(Exception):
            writer.close()
        writer.is_open = False


KINDS: dict[str, Callable[[BinaryIO, int], AbstractContextManager[Callable[[Rows], None]]]] = {
    ".npy": _npy,
    ".parquet": _parquet,
}
"""What writes files, by the ending of their names."""
