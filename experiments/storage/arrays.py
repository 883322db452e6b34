"""Rows of numbers written to a .npy file as they come, so that none of them need be kept."""

import os
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float


class RowWriter:
    """A file of float32 [N D] that appears whole, when the block is left without an error, or not at all."""

    def __init__(self, path: Path, features: int):
        self._path, self._partial = path, path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._features, self._rows = features, 0
        self._file = self._partial.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        """Write the header; NumPy leaves room in it, so that its size does not depend on the number of rows."""
        self._file.seek(0)
        shape = (self._rows, self._features)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: Float[np.ndarray, "N D"]) -> None:
        """Add rows."""
        if rows.shape[1:] != (self._features,):
            raise ValueError(f"expected rows of {self._features} numbers, got the shape {rows.shape}.")
        self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
        self._rows += len(rows)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write_header()
        finally:
            self._file.close()
        if kind is None:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)
