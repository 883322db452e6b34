"""What a trained model says of texts: `python -m experiments.predict RUN [FILE] [--vectors FILE]`."""

import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal

import tyro
from tqdm import tqdm

from experiments.base import files
from experiments.base.command_line import command, parse
from experiments.base.errors import UsageError
from experiments.data import lines
from experiments.reporting.predictions import while_read, write_csv, write_jsonl
from experiments.run.trained import Trained, load
from experiments.storage.arrays import KINDS, row_writer
from experiments.storage.run_folder import check_free


@dataclasses.dataclass(frozen=True)
class Options:
    """Predict the texts of a file or a pipe with a trained model; pairs of names where it rates items for users."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run, or of an export."""
    file: tyro.conf.Positional[Path | None] = None
    """Text lines, or CSV, TSV or JSON lines by ending; text lines from the standard input when not given. Pairs of a
    user and an item are rows of CSV or TSV, or JSON lines, which the standard input holds."""
    column: str = ""
    """Column of the text in a table; found by its name when not given."""
    format: Literal["jsonl", "csv"] = "jsonl"
    """How predictions are written."""
    vectors: Path | None = None
    """Write the pooled vectors, one row a text, into this .npy or .parquet file too, which is not there yet."""
    debug: bool = False
    """Show the traceback of an error."""


def predictions(trained: Trained, texts: Iterable[str], vectors: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a prediction a text; write the pooled vectors, where asked for, as they come."""
    if vectors is None:
        yield from trained.predict(texts)
        return
    if vectors.suffix not in KINDS or not trained.objective.pools:
        kinds = " or ".join(KINDS)
        raise UsageError(f"--vectors {vectors}: give a name that ends in {kinds}, and a run whose objective pools.")
    check_free(vectors, "--vectors")
    empty = next(trained.answers(["" if trained.codec.fields is None else ("",) * len(trained.codec.fields)]))
    with row_writer(vectors, empty["pooled"].shape[-1]) as write:
        given, texts = itertools.tee(texts)
        for found in trained.answers(given):
            write(found["pooled"])
            yield from trained.readable(found, texts)


def _records(
    trained: Trained, file: BinaryIO, path: Path, options: Options, seen: Callable[[int], object]
) -> Iterator[Any]:
    """Return what a file holds, as the model reads it: texts, or tuples of names."""
    fields = trained.codec.fields
    if fields is None:
        return lines.texts(file, path, options.column, seen)
    if options.column:
        raise UsageError(
            f"the model reads {' and '.join(fields)}, whose columns are found by name: leave out --column."
        )
    return lines.tuples(file, path, fields, seen)


def predict(options: Options) -> None:
    """Read, predict and print."""
    trained = load(options.run)
    path = options.file or Path("standard input")
    with ExitStack() as stack:
        file = stack.enter_context(files.opened(path) if options.file else nullcontext(sys.stdin.buffer))
        size = path.stat().st_size if path.is_file() else None
        shows = sys.stderr.isatty()
        bar = stack.enter_context(tqdm(total=size, unit="B", unit_scale=True, file=sys.stderr, disable=not shows))
        texts = _records(trained, file, path, options, bar.update)
        records = predictions(trained, texts, options.vectors)
        records = records if options.vectors else while_read(records)  # vectors are written to the end
        {"jsonl": write_jsonl, "csv": write_csv}[options.format](records)
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        try:
            predict(parse(Options, arguments, program="python -m experiments.predict"))
        except BrokenPipeError:  # The reader, as `head`, has enough; Python must not flush into the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return command("predict", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
