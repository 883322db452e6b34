"""Questions to a trained model: `python -m experiments.analyse RUN --analysis gradient [--split test] [--texts 200]`.

Prints a Markdown table and writes it, with what it was computed from, as JSON, and a picture where there is one.
"""

import contextlib
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from tqdm import tqdm

from experiments.analyses import ANALYSES
from experiments.base.command_line import command, parse
from experiments.base.errors import DataError, UsageError, unknown
from experiments.base.figures import save
from experiments.base.json_files import read_object
from experiments.base.options import Interval, to_dict, validate
from experiments.data.rating_task import RatingTask
from experiments.data.text_task import TextTask
from experiments.run.config import Config, chosen_names
from experiments.run.trained import load_run
from experiments.storage import run_folder
from experiments.tasks import TASKS

Ask = TypeVar("Ask")

ALL = "all"
"""The split that is all splits."""
ASKED = ("ask", "texts")
"""The options that an answer depends on, beside the run, and the analysis and the split, which the file is named by."""


@dataclasses.dataclass(frozen=True)
class Options(Generic[Ask]):
    """Ask a question of a trained model."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    ask: Ask
    analysis: str = "gradient"
    """The question; one of the names in experiments/analyses."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Where the texts come from."""
    texts: Annotated[int, Interval("[0, 100000000]")] = 0
    """Number of texts, spread evenly over the split; 0 for all."""
    archives: Path | None = None
    """Folder with the archive of the data; the one that the run was trained from when not given."""
    out: Path | None = None
    """Folder for the JSON file; `analyses` in the folder of the run when not given. A file of other options is kept,
    and the new one has a number."""
    debug: bool = False
    """Show the traceback of an error."""


def parse_args(arguments: list[str]) -> Options:
    """Return the options of a command line."""
    name = chosen_names(arguments, "analysis").get("analysis", "gradient")
    if name not in ANALYSES:
        raise unknown("analysis", name, ANALYSES)
    kind: Any = Options[ANALYSES[name].Options]  # type: ignore[misc]
    options = parse(kind, arguments, program="python -m experiments.analyse")
    validate(options)
    return options


def with_archives(config: Config, archives: Path | None) -> Config:
    """Return the configuration with another folder of archives, if one is given."""
    if archives is None:
        return config
    if not hasattr(config.data, "archives"):
        raise UsageError(f"the task {config.task} has no archive: leave out --archives.")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, archives=archives))


def examples(config: Config, split: str, count: int) -> list[Any]:
    """Return examples of the task of a run, spread evenly over a split, or over all of them."""
    task = TASKS[config.task]
    if not issubclass(task, TextTask | RatingTask):
        raise UsageError(f"the task {config.task} has no texts to analyse.")
    found = [example for example in task.examples(config.data) if split in (example.split, ALL)]
    count = min(count or len(found), len(found))
    return [found[index * len(found) // count] for index in range(count)]


def markdown(table: list[dict[str, Any]]) -> str:
    """Return rows of the same columns as a Markdown table."""
    shown = [{name: in_print(x) for name, x in row.items()} for row in table]
    rows = [[*shown[0]], ["---"] * len(shown[0]), *([*row.values()] for row in shown)] if shown else []
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def file_of(folder: Path, name: str, question: dict[str, Any]) -> Path:
    """Return where the answer is written: `name.json`, or the first of `name-2.json`, ... that no other question has.

    The question is the options as they are stored. A file that cannot be read is kept too.
    """
    paths = (folder / f"{name}{ending}.json" for ending in itertools.chain([""], map("-{}".format, itertools.count(2))))
    return next(path for path in paths if not path.exists() or _asked(path) == {key: question[key] for key in ASKED})


def _asked(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(DataError):
        options = read_object(path).get("options")
        return {key: options.get(key) for key in ASKED} if isinstance(options, dict) else None
    return None


def in_print(x: Any) -> str:
    """Return a fact as it is printed: numbers that are not whole with three digits."""
    return f"{x:.3f}" if isinstance(x, float) else str(x)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse_args(arguments)
        trained = load_run(options.run)
        trained = trained._replace(config=with_archives(trained.config, options.archives))
        if trained.codec.fields is not None and not getattr(ANALYSES[options.analysis], "reads_ratings", False):
            raise UsageError(f"the analysis needs a task whose examples are texts, which {trained.config.task} is not.")
        reads = getattr(ANALYSES[options.analysis], "reads_examples", True)
        if not reads and (options.split, options.texts) != (Options.split, Options.texts):
            raise UsageError(f"the analysis {options.analysis} has texts of its own: leave out --split and --texts.")
        chosen = examples(trained.config, options.split, options.texts) if reads else []
        bar = tqdm(chosen, unit="text", file=sys.stderr, disable=not (reads and sys.stderr.isatty()))
        findings = ANALYSES[options.analysis](options.ask)(trained, bar)
        name = f"{options.analysis}-{options.split}" if reads else options.analysis
        question = to_dict(options)
        path = file_of(options.out or options.run / run_folder.ANALYSES, name, question)
        found = {name: value for name, value in findings._asdict().items() if name != "figure"}
        run_folder.write_whole(path, run_folder.as_json({"options": question, **found}))
        if findings.figure is not None:
            save(findings.figure, path.with_suffix(".png"))
        print(markdown(findings.table))
        facts = ", ".join(f"{name} {in_print(value)}" for name, value in findings.summary.items())
        asked = f" of {len(chosen)} texts of the {options.split} split" if reads else ""
        print(f"{options.analysis}{asked}: {facts}; {path}")

    return command("analyse", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
