"""Tables, figures and a page from run folders alone: `python -m experiments.report RUN... [--page docs/page.md]`.

A RUN is a run folder or the folder of a sweep. Runs that differ only in seed or fold make one row, with the options
that are not at their default, the mean and its 95 % interval, and the difference to attention pooling over the same.
The same folders give the same bytes, in whatever order they are named.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import tyro

from experiments.base.command_line import command, parse
from experiments.base.errors import UsageError
from experiments.reporting import answers, formats, page, records, statistics, tables
from experiments.reporting.measures import in_order


@dataclasses.dataclass(frozen=True)
class Options:
    """Print a table of finished runs, or write a page with tables and figures."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders of sweeps."""
    format: Literal["markdown", "csv", "latex"] = "markdown"
    """How tables are printed."""
    pivot: bool = False
    """Print poolers down and tasks across, one table an encoder and objective."""
    page: Path | None = None
    """Write a Markdown page here, its figures and its CSV and LaTeX tables into a folder of the same name."""
    analysis: str = ""
    """Print what the runs have answered to an analysis, means over seeds: name a file, as `leave_one_out-test`."""
    text: tuple[str, ...] = ()
    """Texts for the page to show what each pooling attends to."""
    debug: bool = False
    """Show the traceback of an error."""


def printed(options: Options) -> str:
    """Return the tables of a command line as text."""
    rows = records.rows(records.collect(options.runs))
    if options.analysis:
        return formats.FORMATS[options.format](answers.table(rows, options.analysis))
    found = statistics.comparisons(rows)
    records.warn_unverified(rows)
    render = formats.FORMATS[options.format]
    if not options.pivot:
        return render(tables.results(rows, found))
    objectives, parts = in_order(row.key.objective for row in rows), []
    for objective in objectives:
        own = [row for row in rows if row.key.objective == objective]
        for encoder in sorted({row.key.encoder for row in own}):
            title = f"{encoder}, {objective}" if len(objectives) > 1 else encoder
            parts.append(f"{title}\n\n{render(tables.pivot(own, found, encoder))}")
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse(Options, arguments, program="python -m experiments.report")
        if not options.runs:
            raise UsageError("give at least one run folder: python -m experiments.report RUN...")
        if options.analysis and (options.page or options.pivot or options.text):
            raise UsageError("--analysis prints a table of its own: leave out --page, --pivot and --text.")
        if options.page is None:
            print(printed(options), end="")
        else:
            page.write(options.page, options.runs, options.text)

    return command("report", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
