"""The one door through which files are read.

Only regular files come in, of at most so many bytes; a packed one is read to the check sum at its end. Whatever is
wrong with one is a DataError: one line that says the file, the place in it, what was found and what was expected.
"""

import bz2
import contextlib
import csv
import errno
import hashlib
import io
import itertools
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from experiments.base.errors import DataError

MOST = 2**28
"""Bytes of a file that is read whole."""
LONGEST_LINE = 2**20
_MOST_PACKED = 2**33
_LITTLE, _RATIO = 2**26, 100  # text is packed to a tenth, a bomb to a thousandth: no file may hold more than this
_PIECE = 2**16
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_DAMAGED = (
    csv.Error,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,  # RecursionError and NotImplementedError too
    ValueError,  # UnicodeError and JSONDecodeError too
)


@contextlib.contextmanager
def located(where: object) -> Iterator[None]:
    """Turn what the standard library raises at damaged content into one line that begins with `where`."""
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        # An OSError without a number is a decompressor's; a damaged archive can point before its own beginning.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{where} cannot be read: {reason}.") from error


def opened(path: Path, most: int = _MOST_PACKED, remedy: str = "") -> io.BufferedReader:
    """Open a regular file of at most `most` bytes; `remedy` says what to do about a larger one.

    Raises:
        DataError: there is none, or it is a pipe or a device, which could be waited for without end, or too large.
    """
    try:
        _check(path, os.stat(path), most, remedy)
        # Not blocking: it may have become a pipe since, and some files of the system wait for what comes.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DataError(f"there is no file {path}.") from None
    with contextlib.ExitStack() as failed:
        failed.callback(file.close)
        _check(path, os.fstat(file.fileno()), most, remedy)
        failed.pop_all()
    return file


def _check(path: Path, status: os.stat_result, most: int, remedy: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DataError(f"{path} is {kind}, expected a regular file.")
    if status.st_size > most:
        raise DataError(f"{path} has {status.st_size} bytes, expected at most {most}{remedy and f': {remedy}'}.")


def content(path: Path, most: int = MOST, remedy: str = "") -> bytes:
    """Return all of a regular file of at most `most` bytes."""
    with opened(path, most, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        found = file.read(size + 1)
    if len(found) > size:
        raise DataError(f"{path} has more than its {size} bytes: it is written while it is read, or no regular file.")
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a regular file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Readable(Protocol):
    """What has bytes to read."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class _Bounded(io.RawIOBase):
    """A stream of at most `most` bytes, whose errors name `where`."""

    def __init__(self, source: Readable, where: object, most: int):
        self._source, self._where, self._most, self._read = source, where, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with located(self._where):
            piece = self._source.read(len(buffer)) or b""
        self._read += len(piece)
        if self._read > self._most:
            raise DataError(f"{self._where} holds more than {self._most} bytes, expected at most these.")
        buffer[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_PIECE), b""))


def bounded(source: Readable, where: object, most: int) -> BinaryIO:
    """Return a stream that raises DataError beyond `most` bytes, and where its source is damaged."""
    return io.BufferedReader(_Bounded(source, where, most), _PIECE)


class _Gzip:
    """The decompressor of gzip, in the form of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


_FORMS: dict[str, tuple[bytes, Callable[[], Any]]] = {
    "gzip": (b"\x1f\x8b", _Gzip),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
    "xz": (b"\xfd7zXZ\0", partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=2**28)),
}
ZIP = b"PK\x03\x04"
_SUFFIXES = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip", ".whl": "zip"}


class _Unpacked:
    """What packed streams, one after another, unpack to; every one is read to its check sum."""

    def __init__(self, packed: Readable, where: object, head: bytes = b""):
        self._packed, self._data = packed, head or packed.read(_PIECE)
        found = [make for magic, make in _FORMS.values() if self._data.startswith(magic)]
        if not found:
            raise DataError(f"{where} begins with {self._data[:12]!r}, expected a file of {', '.join(_FORMS)} or zip.")
        self._make, self._stream = found[0], found[0]()

    def read(self, size: int) -> bytes:
        while True:
            if self._stream.eof:
                # Between streams zeros may stand, to fill a block.
                self._data = self._stream.unused_data.lstrip(b"\0")
                while not self._data and (piece := self._packed.read(_PIECE)):
                    self._data = piece.lstrip(b"\0")
                if not self._data:
                    return b""
                self._stream = self._make()
            if not self._data and self._stream.needs_input:
                self._data = self._packed.read(_PIECE)
                if not self._data:
                    raise EOFError("it ends before its check sum")
            piece = self._stream.decompress(self._data, size)
            self._data = b""
            if piece:
                return piece


@contextlib.contextmanager
def unpacked(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open what a packed file holds, at most `most` bytes; what is not read is, at the end, for the check sum there."""
    with opened(path) as file, located(path.name):
        most = min(most, _LITTLE + _RATIO * os.fstat(file.fileno()).st_size)
        stream = bounded(_Unpacked(file, path.name), path.name, most)
        yield stream
        while stream.read(_PIECE):
            pass


def unpack(packed: bytes, where: object, most: int) -> bytes:
    """Return what packed bytes hold, at most `most` bytes."""
    with located(where):
        return bounded(_Unpacked(io.BytesIO(packed), where), where, most).read()


def why_not(path: Path) -> str:
    """Return what is wrong with the beginning of a file whose name says its form, or nothing."""
    form = _SUFFIXES.get(path.suffix)
    with opened(path) as file:
        head = file.read(12)
    if form is None or head.startswith(ZIP if form == "zip" else _FORMS[form][0]):
        return ""
    return f"begins with {head!r}, expected a file of {form}"


def lines(file: BinaryIO, where: object, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a stream, numbered from 1, each of at most `longest` bytes."""
    number = 1
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise DataError(f"{where}, line {number}: longer than {longest} bytes.")
        yield number, line
        number += 1


def text(data: bytes, where: object) -> str:
    """Return bytes as text in UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = data[error.start : error.start + 4]
        raise DataError(f"{where}, byte {error.start}: found {found!r}, expected text in UTF-8.") from None


def rows(
    source: Iterable[str], where: object, *, delimiter: str = ",", strict: bool = False, longest: int = LONGEST_LINE
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, numbered from 1, the empty ones too; no field has more than `longest` characters."""
    reader = csv.reader(source, delimiter=delimiter, strict=strict)
    for number in itertools.count(1):
        before = csv.field_size_limit(longest)  # of the whole process: others keep theirs
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}, line {reader.line_num}: {error}; expected quotes that close.") from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield number, row


def records(source: Iterable[str], where: object, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table below their header, which must have the columns; empty rows are passed over."""
    header: list[str] = []
    for number, row in rows(source, where):
        if not header:
            header = row
            for name in columns:
                if header.count(name) != 1:
                    raise DataError(f"{where}, row 1: found {header}, expected one column {name}.")
        elif row:
            if len(row) != len(header):
                raise DataError(f"{where}, row {number}: found {len(row)} columns, expected {len(header)}.")
            yield dict(zip(header, row, strict=True))
