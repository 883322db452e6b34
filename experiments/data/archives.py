"""Archives, read without unpacking them to disk: no name inside one can reach a path.

Members are checked before they are used: what they are, and the size that they announce. An archive is read to its
end, where the check sum is, however early the last member that is wanted comes.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.files import bounded, located, unpacked

LARGEST, MOST = 2**25, 2**29
"""Bytes of a member that is read whole, and of all that an archive unpacks to."""
_MOST_ABOUT = 2**20  # what a tar may say about the member that follows: a long name, a comment
_ABOUT = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_PACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def members(
    path: Path, wanted: Callable[[str], object], largest: int = LARGEST, most: int = MOST
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files whose names are `wanted`, in the order of a tar or zip archive.

    Raises:
        DataError: the archive is damaged, a member is no file, or it announces or holds more than `largest` bytes, or
            all of them more than `most`.
    """
    for name, file in streams(path, wanted, largest, most):
        yield name, file.read()


def member(path: Path, suffix: str, largest: int = LARGEST) -> bytes:
    """Return the content of the one file whose name ends in `suffix`."""
    found = [content for _, content in members(path, ends_in(suffix), largest)]
    if len(found) != 1:
        raise lacks(path, suffix, len(found))
    return found[0]


def names(path: Path) -> list[str]:
    """Return the names of the files in a zip archive."""
    with files.opened(path) as file, located(path.name), zipfile.ZipFile(file) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def ends_in(suffix: str) -> Callable[[str], bool]:
    """Return a function that says whether a name in an archive ends in whole parts of a path."""
    return lambda name: f"/{name}".endswith(f"/{suffix}")


def lacks(path: Path, suffix: str, found: int = 0) -> DataError:
    """Return the error of an archive that has not one member of that name."""
    return DataError(f"{path.name} has {found or 'no'} member {suffix}: is it the archive that upstream serves?")


def streams(
    path: Path, wanted: Callable[[str], object], largest: int = LARGEST, most: int = MOST
) -> Iterator[tuple[str, BinaryIO]]:
    """Yield what `members` yields, as files that can be read until the next is asked for."""
    with files.opened(path) as file:
        is_zip = file.read(4) == files.ZIP
    yield from (_zipped if is_zip else _tarred)(path, wanted, largest, most)


class _Header(tarfile.TarInfo):
    """A header that is whole; tarfile takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # zeros: the end
            raise tarfile.ReadError(f"a member has no header ({error})") from None
        if header.type in _ABOUT and not 0 <= header.size <= _MOST_ABOUT:
            raise tarfile.ReadError(f"{header.size} bytes about a member, expected at most {_MOST_ABOUT}")
        return header


def _tarred(path: Path, wanted: Callable[[str], object], largest: int, most: int) -> Iterator[tuple[str, BinaryIO]]:
    with (
        unpacked(path, most) as content,
        tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as archive,
    ):
        for info in archive:
            where = f"{path.name}, member {info.name}"
            is_wanted = not info.isdir() and wanted(info.name)
            _check_size(where, info.size, largest if is_wanted else most)
            if is_wanted:
                file = archive.extractfile(info) if info.isreg() and not info.issparse() else None
                if file is None:
                    raise DataError(f"{where} is a link or of another type, expected a file.")
                yield info.name, bounded(file, where, largest)


def _zipped(path: Path, wanted: Callable[[str], object], largest: int, most: int) -> Iterator[tuple[str, BinaryIO]]:
    with files.opened(path) as file, located(path.name), zipfile.ZipFile(file) as archive:
        chosen = [info for info in archive.infolist() if not info.is_dir() and wanted(info.filename)]
        _check_size(f"{path.name}, all that is needed of it,", sum(info.file_size for info in chosen), most)
        for info in chosen:
            where = f"{path.name}, member {info.filename}"
            _check_size(where, info.file_size, largest)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{where} is a link, expected a file.")
            if info.compress_type not in _PACKED or info.flag_bits & 1:
                raise DataError(f"{where} has a password or an unknown compression, expected none, or deflate.")
            with archive.open(info) as content:
                stream = bounded(content, where, largest)
                yield info.filename, stream
                while stream.read(2**16):  # to its check sum
                    pass


def _check_size(where: str, size: int, most: int) -> None:
    if not 0 <= size <= most:
        raise DataError(f"{where} announces {size} bytes, expected at most {most}.")
