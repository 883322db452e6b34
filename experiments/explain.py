"""What a trained model weighs in texts: `python -m experiments.explain RUN "a text" [--file FILE] [--html PAGE]`."""

import dataclasses
import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import tyro

from experiments.base import files, streams
from experiments.base.command_line import command, parse
from experiments.base.errors import UsageError
from experiments.data import lines
from experiments.reporting import explained as shown
from experiments.run.explanation import Explained, explained, exponent
from experiments.run.trained import load
from experiments.storage.run_folder import appearing_file, check_free


@dataclasses.dataclass(frozen=True)
class Options:
    """Show the weights of the words of texts in the pooling of a trained model, and what it predicts."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run, or of an export."""
    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """The texts."""
    file: Path | None = None
    """Read the texts from a file: text lines, or CSV, TSV or JSON lines by ending."""
    column: str = ""
    """Column of the text in a table; found by its name when not given."""
    html: Path | None = None
    """Write one page for a browser into this file, which is not there yet, and not to the terminal."""
    debug: bool = False
    """Show the traceback of an error."""


def has_colour() -> bool:
    """Tell whether stdout is a terminal whose user has not asked for no colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def texts_of(options: Options, stack: ExitStack) -> Iterable[str]:
    """Return the texts of the command line or of the file."""
    if bool(options.texts) == bool(options.file):
        raise UsageError('give one or more texts, as "a text", or --file FILE.')
    if options.file is None:
        return options.texts
    file = stack.enter_context(files.opened(options.file))
    return lines.texts(file, options.file, options.column, lambda size: None)


def explain(options: Options) -> None:
    """Read the texts, and print or write what the model makes of them."""
    if options.html:
        check_free(options.html, "--html")
    with ExitStack() as stack:
        texts = texts_of(options, stack)
        trained = load(options.run)
        title = shown.model_in_words(trained, exponent(trained))
        found = explained(trained, texts)
        if options.html:
            page = stack.enter_context(appearing_file(options.html))
            page.write(shown.page_head(title))
            page.writelines(shown.page_section(number, one) for number, one in enumerate(found, start=1))
            page.write(shown.FOOT)
        else:
            for piece in _printed(title, found):
                sys.stdout.write(piece)
                if not streams.is_read():
                    break


def _printed(title: str, found: Iterator[Explained]) -> Iterator[str]:
    first = [*itertools.islice(found, 1)]  # nothing is printed of a bad file, not even the title
    yield f"{title}\n"
    for one in itertools.chain(first, found):
        yield "\n"
        yield shown.coloured(one, shutil.get_terminal_size().columns) if has_colour() else shown.columns(one)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        explain(parse(Options, arguments, program="python -m experiments.explain"))

    return command("explain", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
