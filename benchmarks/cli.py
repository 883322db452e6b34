"""What the commands have in common: a mistake is one line and exit code 2."""

import argparse
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import NoReturn


class UsageError(Exception):
    """The command line or a file asks for something that does not exist."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message} (--help explains every option)")


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """Return a name that is in the table, or raise with the nearest one that is."""
    names = list(names)
    if name in names:
        return name
    nearest = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(names)}"
    raise UsageError(f"unknown {kind} {name!r}: {hint}")


def command(program: str, body: Callable[[list[str]], None], arguments: list[str] | None) -> int:
    """Run a command; return 0 done, 2 usage."""
    try:
        body(sys.argv[1:] if arguments is None else arguments)
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    return 0
