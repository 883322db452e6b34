"""A page from run folders: for every folder that is named, its tables in words and numbers, figures and commands."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from experiments.base.errors import UsageError
from experiments.base.json_files import read_object
from experiments.reporting import attended, figures, needles, records, statistics, tables
from experiments.reporting.records import Row
from experiments.reporting.statistics import Comparison, Estimate
from experiments.storage.run_folder import SWEEP


class Page:
    """Markdown that grows, and the folder for what it links to."""

    def __init__(self, path: Path):
        if path.suffix != ".md":
            raise UsageError(f"--page {path} must end in .md.")
        self.path = path
        self.assets = path.with_suffix("")
        self.assets.mkdir(parents=True, exist_ok=True)
        self.parts: list[str] = []

    def say(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        self.parts += paragraphs

    def table(self, name: str, table: tables.Table) -> None:
        """Add a table, and write it as CSV and LaTeX."""
        (self.assets / f"{name}.csv").write_text(table.csv(), encoding="utf-8")
        (self.assets / f"{name}.tex").write_text(table.latex(), encoding="utf-8")
        links = ", ".join(f"[{kind}]({self.assets.name}/{name}.{kind})" for kind in ("csv", "tex"))
        self.say(table.markdown().strip(), f"({links})")

    def figure(self, name: str, caption: str, figure: Any) -> None:
        """Add a figure."""
        figures.save(figure, self.assets / f"{name}.png")
        self.say(f"![{caption}]({self.assets.name}/{name}.png)", f"*{caption}.*")

    def close(self) -> None:
        """Write the page."""
        self.path.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")


def write(path: Path, folders: Sequence[Path], texts: Sequence[str]) -> None:
    """Write the page of some folders, a section each; nothing is written when a folder cannot be read."""
    sections = [(folder, records.rows(records.collect([folder]))) for folder in folders]
    everything = records.rows([run for _, rows in sections for row in rows for run in (*row.finished, *row.failed)])
    chosen = [attended.split_text(given, everything) for given in texts]
    page = Page(path)
    page.say("# Experiments", PREFACE)
    linear = [row for row in everything if row.key.pooler == "linear"]
    used: set[str] = set()
    for folder, rows in sections:
        neural = [row for row in rows if row.key.pooler != "linear"]
        if neural:
            name = folder.resolve().name
            if name in used:
                raise UsageError(f"two folders are named {name!r}: sections go by the names of folders.")
            used.add(name)
            _section(page, folder, name, neural, linear)
    for index, (text, rows) in enumerate(chosen):
        figure = attended.draw(text, rows)
        if figure is not None:
            page.say(f'## Attention over a text: "{text}"')
            task = rows[0].key.task
            page.figure(f"text-{index}", f"Attention of runs on {task}, first seed; heads are averaged", figure)
    page.close()


PREFACE = """Every number and sentence on this page is printed by `python -m experiments.report` from run folders. ± is
half the 95 % interval of the mean over seeds and folds (Student's t). The test split of a run is read once; its
parameters were chosen on validation. Differences to attention pooling are taken run by run and tested by Student's
paired t-test, corrected by Holm's method for all comparisons of the section. Over places (a place is a task, an encoder
and their options) the mean differences are tested by Wilcoxon's signed-rank test, corrected for the number of poolers;
places that share a task are not independent, so read these p-values as a summary, not as proof."""


def _section(page: Page, folder: Path, name: str, rows: Sequence[Row], linear: Sequence[Row]) -> None:
    """Everything about the runs of one folder."""
    found = statistics.comparisons(rows)
    page.say(f"## {name}")
    about = folder / SWEEP
    if about.exists():
        told = read_object(about)
        page.say(*filter(None, [told["about"]]), f"```bash\n{told['command']}\n```")
        done = sum(len(row.finished) + len(row.failed) for row in rows)
        if done < told["cells"]:
            page.say(f"**Not complete: {done} of the {told['cells']} cells have been done so far.**")
    page.say(_costs(rows))
    lines = needles.best_and_learned(rows)
    if lines:
        page.table(f"{name}-needles", needles.table(lines))
        page.say(_needles_in_words(lines))
    compares = any(one.key.place == other.key.place for one, other in combinations(rows, 2)) and not lines
    if compares:
        _pivots(page, name, rows, found)
    if found and not lines:
        overall = statistics.overall(found)
        page.say("Against attention pooling, over all places; time is that of a training step as a multiple of its:")
        page.table(f"{name}-overall", tables.against_attention(overall, rows))
        page.say(_in_words(found))
    learned = tables.exponents(rows)
    if learned.rows and not lines:
        page.say("The learned exponent of the tested parameters:")
        page.table(f"{name}-exponents", learned)
    if any(row.key.pooler == "naive_norm" or row.failed for row in rows):
        page.say("What broke down because a number was not finite, speed and score:")
        page.table(f"{name}-stability", tables.stability(rows))
    against = tables.against_linear([*rows, *linear])
    if against.rows:
        page.say("Against the linear baseline; encoder and pooler are those that validation prefers:")
        page.table(f"{name}-linear", against)
        page.say(_linear_in_words(against))
    every = tables.results(rows, found, brief=True)
    is_plain = not (compares or lines)  # then these rows are all that there is to read
    if is_plain:
        page.table(f"{name}-rows", every)
    for kind, (caption, draw) in figures.FIGURES.items():
        figure = draw(rows) if compares or kind != "accuracy" else None
        if figure is not None:
            page.figure(f"{name}-{kind}", caption, figure)
    page.say("<details><summary>All rows, and the command of each</summary>")
    if not is_plain:
        page.table(f"{name}-rows", every)
    page.say(_commands(rows), "</details>")


def _pivots(page: Page, name: str, rows: Sequence[Row], found: dict[records.Key, Comparison]) -> None:
    """A table an encoder: poolers by tasks."""
    for encoder in sorted({row.key.encoder for row in rows}):
        usual = tables.usual_n([row for row in rows if row.key.encoder == encoder])
        page.say(
            f"Test accuracy in percent, encoder `{encoder}`, n = {usual} unless a cell says otherwise; bold is the "
            "best mean of a task, `*` differs from attention pooling (Holm p < 0.05):"
        )
        page.table(f"{name}-{encoder}", tables.pivot(rows, found, encoder))


def _costs(rows: Sequence[Row]) -> str:
    """Runs, hours and hardware in words."""
    finished = [run for row in rows for run in row.finished]
    failed = sum(len(row.failed) for row in rows)
    hours = sum(run.facts["seconds"]["total"] for run in finished) / 3600
    text = f"{len(finished)} finished runs of {len(rows)} configurations, {hours:.1f} hours in all"
    text += f"; {failed} failed" if failed else ""
    places = sorted({_hardware(run.environment) for run in finished if run.environment})
    return f"{text}. Made on: {'; '.join(places) or 'not recorded'}."


def _hardware(environment: dict[str, Any]) -> str:
    packages = ("python", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = ", ".join(f"{package} {environment[package]}" for package in packages if package in environment)
    device, cores = environment.get("device", "?"), environment.get("cpu_count", "?")
    return f"{device} ({cores} usable cores a process), {environment.get('system', '?')}, {versions}"


def _in_words(found: dict[records.Key, Comparison]) -> str:
    """Where learned norm helps and where it does not, a sentence for each."""
    ours = {key: comparison for key, comparison in found.items() if key.pooler == "learned_norm"}
    if not ours:
        return ""
    sentences = []
    for method in sorted({key.method for key in ours}):
        mine = {key: comparison for key, comparison in ours.items() if key.method == method}
        below = [_where(key) for key, c in mine.items() if c.difference.mean <= 0]
        sure = {sign: [_where(key) for key, c in mine.items() if _is_sure(c, sign)] for sign in (1, -1)}
        text = f"`{method}`: mean accuracy above attention pooling in {len(mine) - len(below)} of {len(mine)} places. "
        text += f"It does not help on {', '.join(below)}. " if below else ""
        text += f"After correction the difference is above zero in {len(sure[1])}{_listed(sure[1])}"
        sentences.append(f"{text} and below zero in {len(sure[-1])}{_listed(sure[-1])}.")
    return "\n\n".join(sentences)


def _where(key: records.Key) -> str:
    return f"{key.task} with {key.encoder}"


def _is_sure(comparison: Comparison, sign: int) -> bool:
    return comparison.corrected is not None and comparison.corrected < 0.05 and comparison.difference.mean * sign > 0


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _needles_in_words(lines: Sequence[needles.Line]) -> str:
    close = {
        "accuracy": [str(line.signals) for line in lines if line.is_close(line.best)],
        "loss": [str(line.signals) for line in lines if line.is_close(line.lowest)],
    }
    told = [f"{len(found)} by {score}{_listed(found)}" for score, found in close.items()]
    apart = [str(line.signals) for line in lines if _apart(line.best_accuracy, line.learned_accuracy)]
    return (
        f"Of {len(lines)} values of k, the learned p is within 25 % of the best fixed p for {', for '.join(told)}. The "
        "best fixed p has the highest mean validation accuracy, or the lowest validation loss, that of a run being the "
        "lowest of all its validations. The intervals of the test accuracy at the best fixed p by accuracy and at the "
        "learned p are apart for "
        f"{len(apart)}{_listed(apart)}. The learned p is that of the tested parameters, which are those of the highest "
        "validation accuracy of a run; the last column has it at the end of training." + _why_not(lines)
    )


def _why_not(lines: Sequence[needles.Line]) -> str:
    """Why a learned exponent misses the best fixed one: what it is learned from."""
    below = [str(line.signals) for line in lines if line.fitted < line.lowest]
    if not below:
        return ""
    return (
        "\n\nWhy not: the exponent is learned from the training loss. At the end of training, that loss is lowest at a "
        "smaller fixed exponent than the validation loss for "
        f"{len(below)} of {len(lines)} values of k{_listed(below)}. What a larger exponent gains, it gains on texts "
        "that were not trained on, as regularisation does, and no gradient of the training loss shows that."
    )


def _apart(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals do not overlap; a single run has none."""
    if one.half is None or other.half is None:
        return False
    return abs(one.mean - other.mean) > one.half + other.half


def _linear_in_words(table: tables.Table) -> str:
    ahead = [str(row[0]) for row in table.rows if isinstance(row[-1], float) and row[-1] > 0]
    behind = [str(row[0]) for row in table.rows if str(row[0]) not in ahead]
    text = f"The neural row is ahead of the linear baseline on {len(ahead)} of {len(table.rows)} tasks{_listed(ahead)}"
    return f"{text}, behind or equal on {', '.join(behind)}." if behind else f"{text}."


def _commands(rows: Sequence[Row]) -> str:
    """The command of every row; seeds, and folds where there are several, stand beside it."""
    lines = []
    for row in rows:
        runs = [*row.finished, *row.failed]
        last = max(runs, key=lambda run: run.repeat)
        names = {"SEED": ("--seed", [run.seed for run in runs])}
        if last.fold:
            names["FOLD"] = ("--data.fold", [run.fold for run in runs])
        command = last.command
        for name, (flag, _) in names.items():
            command = re.sub(rf"{flag} \d+", f"{flag} {name}", command)
        notes = [f"{name}: {' '.join(map(str, sorted(set(values))))}" for name, (_, values) in names.items()]
        if row.finished:
            notes.append(f"{np.mean([run.facts['seconds']['total'] for run in row.finished]):.0f} s each")
        lines.append(f"{command}  # {'; '.join(notes)}")
    return "```bash\n" + "\n".join(lines) + "\n```"
