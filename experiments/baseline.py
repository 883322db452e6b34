"""The baseline of an objective on the same split: what counts of words alone come to (experiments/baselines).

    python -m experiments.baseline [--task NAME] [--objective NAME] [--archives DIR] [--out DIR]

What it has to choose is chosen on the validation split; the test split is read once, at the end.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Generic

from experiments.base.command_line import command, parse
from experiments.base.errors import UsageError, unknown
from experiments.base.options import changed, validate
from experiments.baselines import BASELINES
from experiments.objectives import OBJECTIVES
from experiments.run.config import Data, chosen_names, deciding_data, default_objective
from experiments.run.result import in_words
from experiments.storage.run_folder import RunFolder
from experiments.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Options(Generic[Data]):
    """Score counts of words on a task."""

    data: Data
    task: str = "wordnet"
    """The data; one of the names in experiments/tasks."""
    objective: str = "classify"
    """What is learned; one of the names in experiments/baselines. The default is that of the task."""
    out: Path | None = None
    """Run folder for summary.json, new or empty; nothing is written when not given."""
    debug: bool = False
    """Show the traceback of an error."""


def parse_args(arguments: list[str]) -> Options:
    """Return the options of a command line."""
    names = chosen_names(arguments, "task", "objective")
    task = names.get("task", Options.task)
    objective = names.get("objective") or default_objective(task, deciding_data(arguments, task))
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if objective not in BASELINES:
        raise UsageError(f"there is no baseline for {objective}: choose --objective {' or '.join(BASELINES)}.")
    data = TASKS[task].Options()
    kind: Any = Options[type(data)]  # type: ignore[misc]
    default = kind(data=data, task=task, objective=objective)
    options = parse(kind, arguments, program="python -m experiments.baseline", default=default)
    validate(options)
    return options


def score(options: Options) -> dict[str, Any]:
    """Fit on the training split, choose on validation, test once; return the summary."""
    began = time.perf_counter()
    facts = BASELINES[options.objective](TASKS[options.task], options.data)
    return {
        "task": options.task,
        "objective": options.objective,
        "seed": 0,
        "fold": getattr(options.data, "fold", 0),
        "options": changed(options, dataclasses.replace(options, data=type(options.data)())),
        "p": None,
        **facts,
        "seconds": {"total": time.perf_counter() - began},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse_args(arguments)
        folder = RunFolder(options.out) if options.out else None
        facts = score(options)
        if folder:
            with folder:
                folder.finish(facts)
        print(f"{in_words(facts)} ({facts['encoder']}, {facts['pooler']})")
        for name, scores in facts.get("beside", {}).items():
            print(f"{in_words({**facts, **scores})} ({name})")

    return command("baseline", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
