"""A trained model as a folder that leaves the lab: `python -m experiments.export RUN --out DIR`."""

import dataclasses
import sys
from pathlib import Path

import tyro

from experiments.base.command_line import command, parse
from experiments.base.errors import printable
from experiments.run.exported import write_export
from experiments.run.trained import load_run


@dataclasses.dataclass(frozen=True)
class Options:
    """Write the model of a finished run in safe formats; jax and numpy are enough to read them."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    out: Path
    """Folder of the export, new or empty."""
    debug: bool = False
    """Show the traceback of an error."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse(Options, arguments, program="python -m experiments.export")
        sizes = write_export(load_run(options.run), options.out)
        for name, size in sizes.items():
            print(f"{size:>12,} bytes  {name}")
        print(f"exported {printable(options.run)} to {printable(options.out)}")

    return command("export", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
