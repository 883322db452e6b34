"""Tables from run folders: `python -m experiments.report RUN...` prints mean, spread and number of runs as Markdown.

Runs that differ only in their seed make one row, with the options that are not at their default. The spread is the
sample standard deviation.
"""

import dataclasses
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.checkpoint import CONFIG
from experiments.cli import command, parse
from experiments.config import default_config, from_json
from experiments.errors import DataError, UsageError
from experiments.options import changed


@dataclasses.dataclass(frozen=True)
class Options:
    """Print a Markdown table of finished runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    debug: bool = False
    """Show the traceback of an error."""


def changed_options(text: str) -> str:
    """Return the options of a configuration that differ from their default."""
    config = from_json(text)
    return changed(config, default_config(config.task, config.encoder, config.pooler))


def read(folder: Path) -> dict[str, Any]:
    """Return the summary of a run, with the options that are not at their default."""
    path = folder / "summary.json"
    if not path.exists():
        raise DataError(f"{folder} has no summary.json: give the folder of a finished run.")
    summary = json.loads(path.read_text(encoding="utf-8"))
    config = folder / CONFIG
    return (
        {"options": ""}
        | summary
        | ({"options": changed_options(config.read_text(encoding="utf-8"))} if config.exists() else {})
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Return "mean ± standard deviation", or the value alone when there is only one."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Return one Markdown row a configuration, best accuracy first."""
    groups = defaultdict(list)
    for summary in summaries:
        groups[summary["task"], summary["encoder"], summary["pooler"], summary["options"]].append(summary)
    ranked = sorted(groups.items(), key=lambda item: -statistics.fmean(run["test"]["accuracy"] for run in item[1]))
    lines = [
        "| task | encoder | pooler | options | runs | test accuracy | macro-F1 | p | parameters | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for names, runs in ranked:
        exponents = [float(np.mean(run["p"])) for run in runs if run["p"] is not None]
        cells = [
            *names,
            str(len(runs)),
            spread([run["test"]["accuracy"] for run in runs], 4),
            spread([run["test"]["macro_f1"] for run in runs], 4),
            spread(exponents, 2) if exponents else "",
            ", ".join(str(count) for count in sorted({run["parameters"] for run in runs})),
            spread([run["seconds"]["total"] for run in runs], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse(Options, arguments, program="python -m experiments.report")
        if not options.runs:
            raise UsageError("give at least one run folder: python -m experiments.report RUN...")
        print(table([read(folder) for folder in options.runs]))

    return command("report", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
