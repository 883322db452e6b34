"""Standard streams that are closed, full, or cannot show a character: nothing that a command does depends on them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any


class Lenient:
    """A stream to which writing never fails: when it cannot be written any more, what would be said is lost."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is kept back if that is possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def silence(stream: IO[str]) -> None:
    """Let what is still written to a stream, by libraries and at the end of the process too, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Inside the block stdout and stderr exist and can show every character, and writing to stderr never fails."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        out, err = (stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8")) for stream in before)
        for stream in (out, err):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = out, Lenient(err)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def flushed() -> OSError | None:
    """Write out what was printed on stdout; return what went wrong."""
    try:
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        return error
    return None
