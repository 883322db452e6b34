"""Train a text encoder on a task and test it once: `python -m experiments.train --help`."""

import sys

from experiments.base import devices
from experiments.base.command_line import command
from experiments.base.errors import printable
from experiments.run.config import parse_args
from experiments.run.loop import train
from experiments.run.result import in_words


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        config = parse_args(arguments)
        with devices.distributed(config.devices):
            facts = train(config)
            if devices.is_first():
                seconds, folder = facts["seconds"]["total"], printable(facts["folder"])
                print(f"{seconds:.0f} seconds, {facts['parameters']} parameters, run folder {folder}")
                print(in_words(facts))

    return command("train", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
