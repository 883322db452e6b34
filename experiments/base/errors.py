"""Mistakes that end a command: each class knows its exit code and its message fits on one line."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 300
"""Characters of a message."""


def printable(text: object) -> str:
    """Return a text as one line: characters that move the cursor, or that a terminal cannot show, as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def in_short(text: object, most: int = LONGEST) -> str:
    """Return a text as one line of at most `most` characters; of a longer one the middle is left out.

    >>> in_short("expected one of a, b, c, d, e, f and g", most=20)
    'expected on ...and g'
    """
    line = printable(text)
    head = most * 2 // 3 - 2
    return line if len(line) <= most else f"{line[:head]} ...{line[head + 4 - most :]}"


class HarnessError(Exception):
    """Base of the errors that are shown without a traceback: their message is one line, however long what it quotes."""

    exit_code: int

    def __init__(self, message: object = ""):
        super().__init__(in_short(message))


class UsageError(HarnessError):
    """The command line or a configuration file asks for something that does not exist."""

    exit_code = 2


class InUseError(UsageError):
    """Another process writes where this one would."""


class NonFiniteError(HarnessError):
    """The loss or a gradient is no longer a finite number."""

    exit_code = 3


class DataError(HarnessError):
    """A data file is missing, changed or malformed."""

    exit_code = 65


class NetworkError(HarnessError):
    """Data that is not at hand cannot be fetched."""

    exit_code = 69


class CellsFailedError(HarnessError):
    """A sweep is through, and some of its cells have no result."""

    exit_code = 1


class SaveError(HarnessError):
    """The state of a run cannot be written."""

    exit_code = 74


class StoppedError(HarnessError):
    """A signal asked the run to stop, and all of it is saved."""

    exit_code = 75


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Return the error for a name that is in no table, with the hint or else with the nearest name that is."""
    known = sorted(known)
    nearest = get_close_matches(name[:LONGEST], known, n=1, cutoff=0.4)
    guess = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(known)}."
    return UsageError(f"unknown {kind} {name!r}: {hint or guess}")
