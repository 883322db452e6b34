"""What every command has in common: one-line errors and fixed exit codes."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterable
from itertools import dropwhile, takewhile
from typing import Any

import tyro

from experiments.base import streams
from experiments.base.errors import HarnessError, UsageError, in_short, unknown
from experiments.base.options import flag, leaves

UNFORESEEN = 1
INPUT_OUTPUT = 74
INTERRUPTED = 130  # 128 + SIGINT, as shells count it


def _nowhere(option: str) -> str:
    return ""


def parse(
    kind: Any,
    arguments: list[str],
    *,
    program: str,
    default: Any = None,
    about: str | None = None,
    elsewhere: Callable[[str], str] = _nowhere,
) -> Any:
    """Return an instance of a dataclass from a command line; `--help` prints and exits, a mistake raises UsageError.

    `about` is what `--help` says first; the docstring of the dataclass when not given. `elsewhere` returns a hint on an
    option that is unknown here, or nothing.
    """
    captured = io.StringIO()
    given = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(captured):
            value, unrecognised = tyro.cli(
                kind,
                args=arguments,
                prog=program,
                description=about,
                return_unknown_args=True,
                **given,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_first_sentence(captured.getvalue())) from None
    if unrecognised:
        name, known = unrecognised[0].split("=")[0], [flag(path) for path, _, _ in leaves(value)]
        raise unknown("option", name, known, _by_its_end(name, known) or elsewhere(name))
    return value


_CALLED_ELSEWHERE = {
    "lr": "learning-rate",
    "wd": "weight-decay",
    "bs": "batch-size",
    "batch": "batch-size",
    "per-device-train-batch-size": "batch-size",
    "num-train-epochs": "epochs",
    "num-epochs": "epochs",
    "max-length": "max-len",
    "max-seq-length": "max-len",
    "model": "encoder",
    "pool": "pooler",
    "pooling": "pooler",
    "loss": "objective",
    "dataset": "task",
    "output": "out",
    "output-dir": "out",
    "random-seed": "seed",
    "dtype": "compute",
}
"""What other tools call an option, and the end of its name here."""


def _by_its_end(name: str, known: Iterable[str]) -> str:
    """Return a hint on the options whose name ends like this one's, or like what other tools call it; or nothing."""
    end = name.lstrip("-").rpartition(".")[2].replace("_", "-").lower()
    ends = {end, _CALLED_ELSEWHERE.get(end, end)}
    found = [flag for flag in known if flag.lstrip("-").rpartition(".")[2] in ends]
    return f"did you mean {' or '.join(map(repr, found))}?" if found else ""


def _first_sentence(box: str) -> str:
    """Return the message of the framed error that the parser drew, on one line: what stands between title and rule."""

    def is_rule(line: str) -> bool:
        return not line.strip("─-╰╯")

    _, *lines = (line.strip("│ ") for line in box.splitlines())
    message = takewhile(lambda line: not is_rule(line), dropwhile(is_rule, lines))
    return " ".join(message) + " (--help explains every option)"


def exit_code(error: Exception) -> int:
    """Return the exit code of an error: its own, 74 input/output, 1 for one that nobody foresaw."""
    if isinstance(error, HarnessError):
        return error.exit_code
    return INPUT_OUTPUT if isinstance(error, OSError) else UNFORESEEN


def command(name: str, body: Callable[[list[str]], None], arguments: list[str] | None) -> int:
    """Run a command and return its exit code.

    0 done, 1 cells of a sweep failed, 2 usage, 3 non-finite, 65 data, 69 network, 74 input/output (what is printed on
    stdout included), 75 stopped and saved, 130 interrupted. An unforeseen error is not caught: Python ends with 1.
    """
    with streams.prepared() as out:
        try:
            code = _run(name, body, sys.argv[1:] if arguments is None else arguments)
        except SystemExit:  # --help
            out.flush()
            if out.failed is None:
                raise
            code = 0
        out.flush()
        if out.failed is None or code:
            return code
        print(f"experiments.{name}: stdout cannot be written ({out.failed}); files are complete.", file=sys.stderr)
        return INPUT_OUTPUT


def _run(name: str, body: Callable[[list[str]], None], arguments: list[str]) -> int:
    try:
        body(arguments)
    except KeyboardInterrupt:
        print(f"experiments.{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (HarnessError, OSError) as error:
        if "--debug" in arguments:
            raise
        print(in_short(f"experiments.{name}: {error}"), file=sys.stderr)
        return exit_code(error)
    return 0
