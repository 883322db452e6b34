"""Run a grid of configurations: `python -m experiments.sweep GRID.toml --out FOLDER`; see sweeping/grid.py.

Every cell is one run folder inside the folder; several processes may share it (sweeping/cells.py). If a cell has
failed, the exit code is 1.
"""

import dataclasses
import shlex
import sys
from pathlib import Path

import tyro

from experiments.base.command_line import command, parse
from experiments.run.config import Config
from experiments.storage.run_folder import SWEEP, as_json, write_whole
from experiments.sweeping import grid
from experiments.sweeping.cells import Cell, share_programs, sweep


@dataclasses.dataclass(frozen=True)
class Options:
    """Run every cell of a grid that has no result yet."""

    out: Path
    """Folder of the run folders; a sweep goes on in it."""
    grid: tyro.conf.Positional[Path | None] = None
    """Grid file (TOML); without one, --set says what the grid is."""
    set: tuple[str, ...] = ()
    """Lines of TOML that win over the grid file, as --set 'seed=[0, 1]' epochs=2."""
    archives: Path | None = None
    """Folder with upstream's archives, for the tasks that read one; nothing is fetched when given."""
    retry_failed: bool = False
    """Do the cells again that failed, or whose files are not as they were written."""
    dry_run: bool = False
    """Print every cell with its state and its command, and run nothing."""
    debug: bool = False
    """Show the traceback of an error."""


def cells(options: Options) -> list[Cell]:
    """Return the cells of a command line; a mistake in any of them is found before the first one runs."""
    plan = grid.read(options.grid) if options.grid else {}
    configs = grid.cells(plan, grid.parse("\n".join(options.set)))
    return [Cell(_with_archives(config, options.archives), options.out / grid.name(config)) for config in configs]


def _with_archives(config: Config, archives: Path | None) -> Config:
    if archives is None or not hasattr(config.data, "archives"):
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, archives=archives))


def note(options: Options, count: int) -> None:
    """Say in the folder what it is: the report shows what the grid is about, its command and how many cells it has."""
    about = grid.read(options.grid).get("about", "") if options.grid else ""
    parts = [str(options.grid)] * (options.grid is not None) + ["--out", str(options.out)]
    parts += ["--set", *options.set] * bool(options.set)
    text = shlex.join(["python", "-m", "experiments.sweep", *parts])
    write_whole(options.out / SWEEP, as_json({"about": about, "command": text, "cells": count}))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse(Options, arguments, program="python -m experiments.sweep")
        plan = cells(options)
        if options.dry_run:
            for cell in plan:
                print(f"{cell.folder.name}: {cell.look().state}\n  {cell.command}")
            print(f"{len(plan)} cells", file=sys.stderr)
        else:
            share_programs(options.out / ".compiled")
            note(options, len(plan))
            sweep(plan, retry_failed=options.retry_failed)

    return command("sweep", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
