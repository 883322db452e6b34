"""A page from run folders: for every folder that is named, its tables in words and numbers, figures and commands."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.base.errors import UsageError
from experiments.base.figures import VECTOR, save
from experiments.base.json_files import read_object
from experiments.reporting import attended, figures, formats, needles, records, sentences, statistics, tables
from experiments.reporting.measures import Measure, in_order
from experiments.reporting.records import Row
from experiments.reporting.statistics import Comparison
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

    def table(self, name: str, table: formats.Table) -> None:
        """Add a table, and write it as CSV and LaTeX."""
        (self.assets / f"{name}.csv").write_text(table.csv(), encoding="utf-8")
        (self.assets / f"{name}.tex").write_text(table.latex(), encoding="utf-8")
        links = ", ".join(f"[{kind}]({self.assets.name}/{name}.{kind})" for kind in ("csv", "tex"))
        self.say(table.markdown().strip(), f"({links})")

    def figure(self, name: str, caption: str, figure: Any) -> None:
        """Add a figure, for the screen and for print."""
        save(figure, self.assets / f"{name}.png")
        print_ = f"{self.assets.name}/{name}{VECTOR}"
        self.say(f"![{caption}]({self.assets.name}/{name}.png)", f"*{caption}.* ([{VECTOR[1:]}]({print_}))")

    def fold(self, summary: str, *paragraphs: str) -> None:
        """Add paragraphs that are shown when the reader asks for them."""
        self.say(f"<details><summary>{summary}</summary>", *paragraphs, "</details>")

    def close(self) -> None:
        """Write the page."""
        self.path.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")


def write(path: Path, folders: Sequence[Path], texts: Sequence[str]) -> None:
    """Write the page of some folders, a section each; nothing is written when a folder cannot be read."""
    sections = [(folder, records.rows(records.collect([folder]))) for folder in folders]
    everything = records.rows([run for _, rows in sections for row in rows for run in (*row.finished, *row.failed)])
    chosen = [attended.split_text(given, everything) for given in texts]
    page = Page(path)
    page.say("# Results", PREFACE)
    page.fold("How differences are tested", TESTS)
    baselines = [row for row in everything if row.is_baseline]
    used: set[str] = set()
    for folder, rows in sections:
        neural = [row for row in rows if not row.is_baseline]
        if neural:
            name = folder.resolve().name
            if name in used:
                raise UsageError(f"two folders are named {name!r}: sections go by the names of folders.")
            used.add(name)
            _section(page, folder, name, neural, baselines)
    for index, (text, rows) in enumerate(chosen):
        figure = attended.draw(text, rows)
        if figure is not None:
            page.say(f'## Attention over a text: "{text}"')
            task = rows[0].key.task
            page.figure(f"text-{index}", f"Attention of runs on {task}, first seed; heads are averaged", figure)
    page.close()
    records.warn_unverified(everything)


PREFACE = """Every number and sentence on this page is printed by `python -m experiments.report` from run folders. ± is
half the 95 % interval of the mean over seeds and folds (Student's t). The test split of a run is read once; its
parameters were chosen on validation."""

TESTS = """Differences to attention pooling are taken run by run and tested by Student's
paired t-test, corrected by Holm's method for all comparisons of the section. Where scores are shares, two one-sided
paired t-tests (Schuirmann, 1987) ask whether the difference lies within half a point, which is equivalence here; Holm's
method corrects them for their own number. Where neither a difference nor equivalence is shown, the runs are too few to
tell. The smallest difference that a paired test would find is that of the noncentral t distribution, with the observed
standard deviation of the differences taken for the true one.

Over places (a place is a task, an encoder and their options) the mean differences are tested by Wilcoxon's signed-rank
test, corrected for the number of poolers. Places that share a task are not independent, so read these p-values, and the
intervals over places, as a summary, not as proof."""


class _Table(NamedTuple):
    """A table, and the sentences before and after it."""

    before: str
    name: str
    table: formats.Table
    after: str = ""

    def put(self, page: Page) -> None:
        """Add the table to a page."""
        page.say(*filter(None, [self.before]))
        page.table(self.name, self.table)
        page.say(*filter(None, [self.after]))


class _Figure(NamedTuple):
    """A figure and what it shows."""

    name: str
    caption: str
    figure: Any

    def put(self, page: Page) -> None:
        """Add the figure to a page."""
        page.figure(self.name, self.caption, self.figure)


class _Part(NamedTuple):
    """The rows of one section that are of one objective."""

    name: str
    """What the files of the part begin with."""
    measure: Measure
    rows: Sequence[Row]
    found: dict[records.Key, Comparison]
    lines: Sequence[needles.Line]

    @property
    def compares(self) -> bool:
        """Whether there are poolers at the same place."""
        return any(one.key.place == other.key.place for one, other in combinations(self.rows, 2)) and not self.lines


def _parts(name: str, rows: Sequence[Row], found: dict[records.Key, Comparison]) -> list[_Part]:
    """Return the rows objective by objective."""
    objectives = in_order(row.key.objective for row in rows)
    parts = []
    for objective in objectives:
        own = [row for row in rows if row.key.objective == objective]
        compared = {key: comparison for key, comparison in found.items() if key.objective == objective}
        begin = f"{name}-{objective}" if len(objectives) > 1 else name
        parts.append(_Part(begin, own[0].key.measure, own, compared, needles.best_and_learned(own)))
    return parts


def _section(page: Page, folder: Path, name: str, rows: Sequence[Row], baselines: Sequence[Row]) -> None:
    """The runs of one folder: for each objective a table and a figure; what else there is, and all commands, folded."""
    found = statistics.comparisons(rows)
    page.say(f"## {name}")
    command = []
    about = folder / SWEEP
    if about.exists():
        grid = read_object(about)
        page.say(*filter(None, [grid["about"]]))
        command = [f"```bash\n{grid['command']}\n```"]
        done = sum(len(row.finished) + len(row.failed) for row in rows)
        if done < grid["cells"]:
            page.say(f"**Not complete: {done} of the {grid['cells']} cells have been done so far.**")
    parts = _parts(name, rows, found)
    items: list[Sequence[_Table | _Figure]]
    items = [several for part in parts for several in (_tables(part, baselines), _figures(part))]
    for first in (several[0] for several in items if several):
        first.put(page)
    every = tables.results(rows, found, brief=True)
    is_plain = not any(part.compares or part.lines for part in parts)  # then these rows are all that there is to read
    if is_plain:
        page.table(f"{name}-rows", every)
    others = [item for several in items for item in several[1:]]
    if others:
        page.say("<details><summary>More tables and figures</summary>")
        for item in others:
            item.put(page)
        page.say("</details>")
    page.say("<details><summary>All rows, and the command of each</summary>", *command, _costs(rows))
    if not is_plain:
        page.table(f"{name}-rows", every)
    page.say(_commands(rows), "</details>")


def _figures(part: _Part) -> list[_Figure]:
    """Return all that the runs have to show, what they were made for first."""
    drawn = {}
    for kind, (file, caption, draw) in figures.figures(part.measure).items():
        figure = draw(part.rows) if part.compares or kind != figures.SCORES else None
        if figure is not None:
            drawn[kind] = _Figure(f"{part.name}-{file}", caption, figure)
    return sorted(drawn.values(), key=lambda one: bool(part.lines) and one is not drawn.get("needles"))


def _tables(part: _Part, baselines: Sequence[Row]) -> list[_Table]:
    """Return the tables of the runs of one objective, the one that answers most first, and what they say in words."""
    name, rows, found, measure = part.name, part.rows, part.found, part.measure
    blocks = []
    if part.lines:
        said = sentences.needles_in_words(part.lines, measure)
        blocks.append(_Table("", f"{name}-needles", needles.table(part.lines, measure), said))
    if found and not part.lines:
        before = (
            "Against attention pooling, over all places; the interval is over places, those that differ or are "
            "equivalent are counted after correction, and time is that of a training step as a multiple of its:"
        )
        table = tables.against_attention(statistics.overall(found), rows)
        blocks.append(_Table(before, f"{name}-overall", table, sentences.in_words(found, measure)))
    if any(row.key.pooler == "naive_norm" or row.failed for row in rows):
        before = "What broke down because a number was not finite, speed and score:"
        blocks.append(_Table(before, f"{name}-stability", tables.stability(rows)))
    if part.compares:
        blocks += _pivots(part)
        before = "What validation prefers, for choosing settings; the mean over places where every pooler has runs:"
        chosen = tables.preferred(rows)
        blocks += [_Table(before, f"{name}-preferred", chosen)] * bool(chosen.rows)
    own = [row for row in baselines if row.key.objective == rows[0].key.objective]
    against = tables.against_baseline(rows, own)
    if against.rows:
        _, kind, *_ = against.header
        before = f"Against the {kind} baseline; encoder and pooler are those that validation prefers:"
        said = sentences.baseline_in_words(against, measure)
        blocks.append(_Table(before, f"{name}-{kind}", against, said))
    learned = tables.exponents(rows)
    if learned.rows and not part.lines:
        blocks.append(_Table("The learned exponent of the tested parameters:", f"{name}-exponents", learned))
    return blocks


def _pivots(part: _Part) -> list[_Table]:
    """Return a table an encoder: poolers by tasks."""
    blocks = []
    for encoder in sorted({row.key.encoder for row in part.rows}):
        usual = tables.usual_n([row for row in part.rows if row.key.encoder == encoder])
        score = f"{part.measure.label}{' in percent' * part.measure.is_share}"
        before = (
            f"Test {score}, encoder `{encoder}`, n = {usual} unless a cell says otherwise; bold is the "
            "best mean of a task, `*` differs from attention pooling (Holm p < 0.05):"
        )
        blocks.append(_Table(before, f"{part.name}-{encoder}", tables.pivot(part.rows, part.found, encoder)))
    return blocks


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
