"""Standard streams that are closed, full, or cannot show a character: nothing that a command does depends on them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any


class Lenient:
    """A stream to which writing never fails: once it cannot be written, further output is dropped."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self.failed: OSError | ValueError | None = None
        """Why it can no longer be written."""

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        """Write what is kept back if that is possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._silence(error)

    def _silence(self, error: OSError | ValueError) -> None:
        """Let what is still written, by libraries and at the end of the process too, go nowhere."""
        self.failed = self.failed or error
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def prepared() -> Iterator[Lenient]:
    """Inside the block stdout, which is given, and stderr exist, show every character and never fail."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        out, err = (stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8")) for stream in before)
        for stream in (out, err):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        result = Lenient(out)
        sys.stdout, sys.stderr = result, Lenient(err)
        try:
            yield result
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def is_read() -> bool:
    """Tell whether what is written on stdout still goes somewhere; where not, as after `| head`, a command may stop."""
    return getattr(sys.stdout, "failed", None) is None
