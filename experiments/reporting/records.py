"""Run folders, read: what was asked for, what came out, and the rows that runs of several seeds make."""

import dataclasses
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.base.errors import DataError, UsageError
from experiments.base.json_files import read_object
from experiments.base.options import in_words, repeats
from experiments.reporting.measures import Measure, measure_of
from experiments.run import result
from experiments.run.config import Config, command_line, config_changes, default_objective, from_json
from experiments.run.result import BEFORE
from experiments.storage import finished
from experiments.storage.finished import Finished, why_not_finished
from experiments.storage.manifest import MANIFEST
from experiments.storage.run_folder import ENVIRONMENT, FAILURE, SUMMARY

OF_POOLER = ("pool.", "optim.p_multiplier", "optim.held_out")
"""What options of the pooler begin with: those that say how its exponent is learned are among them."""


LEARNED_NORMS = ("learned_norm", "log_learned_norm")


class Key(NamedTuple):
    """What the runs of a row share: all but seed and fold. Options are those that are not at their default."""

    task: str
    encoder: str
    pooler: str
    setting: str
    """Options that are not the pooler's."""
    pool: str
    """Options of the pooler."""
    objective: str

    @property
    def options(self) -> str:
        """All options in words."""
        return ", ".join(filter(None, (self.setting, self.pool)))

    @property
    def method(self) -> str:
        """The pooler with its options."""
        return f"{self.pooler} ({self.pool.replace('pool.', '')})" if self.pool else self.pooler

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What poolers are compared at: task, encoder, the options that are not the pooler's, and the objective."""
        return self.task, self.encoder, self.setting, self.objective

    @property
    def measure(self) -> Measure:
        """The metric that runs of the objective are compared by."""
        return measure_of(self.objective)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder: finished when it has a summary, else failed."""

    folder: Path
    key: Key
    seed: int
    config: Config | None
    """None for a baseline, which has no configuration of a network."""
    summary: dict[str, Any] | None
    exit_code: int = 0
    source: Finished | None = None
    """The files of a finished run."""

    @property
    def fold(self) -> int:
        """Which tenth of the data was the test split; 0 where the split is official."""
        if self.config is None:
            return int(self.facts.get("fold", 0))
        return getattr(self.config.data, "fold", 0)

    @property
    def repeat(self) -> tuple[int, int]:
        """What tells the runs of a row apart: fold and seed."""
        return self.fold, self.seed

    @property
    def facts(self) -> dict[str, Any]:
        """The summary of a finished run."""
        assert self.summary is not None
        return self.summary

    @property
    def score(self) -> float:
        """The test value of the metric by which the objective chooses."""
        return self.facts["test"][self.key.measure.name]

    @property
    def validated(self) -> float:
        """The same metric on the validation split."""
        return float(self.facts["validation"][self.key.measure.name])

    @property
    def test_digest(self) -> str | None:
        """The fingerprint of the encoded test split; None for a baseline that reads texts in its own way."""
        return self.facts.get("data", {}).get("test", {}).get("digest")

    @property
    def p(self) -> np.ndarray | None:
        """The exponents of the tested parameters, flat; None for a pooler without."""
        return None if self.facts.get("p") is None else np.ravel(np.asarray(self.facts["p"], float))

    @property
    def skipped(self) -> int:
        """Steps that were not finite and changed nothing, where the run counted them."""
        return int(self.facts.get("skipped_steps", 0))

    @property
    def trains_p(self) -> bool:
        """Whether the exponent is learned."""
        return getattr(self.config and self.config.pool, "exponent", "fixed") != "fixed"

    @property
    def command(self) -> str:
        """The command that makes this run, data fetched from upstream."""
        if self.config is None:
            task, objective = self.key.task, self.key.objective
            is_default = default_objective(task, {}) == objective
            return f"python -m experiments.baseline --task {task}" + f" --objective {objective}" * (not is_default)
        return " ".join(["python -m experiments.train", *command_line(self.config)])

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; none for a run that has no such file."""
        return [] if self.source is None else result.validations(self.source, self.facts)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions and device; empty when they were not recorded."""
        return self.source.read_object(ENVIRONMENT) if self.source and self.source.has(ENVIRONMENT) else {}


@dataclasses.dataclass(frozen=True)
class Row:
    """The runs of one configuration, by fold and seed."""

    key: Key
    finished: tuple[Run, ...]
    failed: tuple[Run, ...]

    @property
    def is_grouped(self) -> bool:
        """Whether equal texts share a fold: else the test split holds texts of the training split, and is easier."""
        return "data.grouped=False" not in self.key.setting

    @property
    def is_baseline(self) -> bool:
        """Whether the runs are of no network."""
        return any(run.config is None for run in self.finished)

    def scores(self) -> dict[tuple[int, int], float]:
        """The test values of the metric by which the objective chooses, by fold and seed."""
        return {run.repeat: run.score for run in self.finished}

    @property
    def gain(self) -> float:
        """The mean score, larger where better; that of a row without finished runs is the worst."""
        return self.key.measure.gain([*self.scores().values()])


def natural(text: str) -> list[Any]:
    """Return a key for sorting in which 2 comes before 10.

    >>> sorted(["p=10", "p=2"], key=natural)
    ['p=2', 'p=10']
    """
    return [float(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", text))]


def differing(setting: str, settings: Sequence[str]) -> str:
    """Return the options of a setting that not all of the settings share.

    >>> differing("a=1, b=2", ["a=1, b=2", "a=1, b=3"])
    'b=2'
    """
    shared = set.intersection(*(set(other.split(", ")) for other in settings))
    return ", ".join(part for part in setting.split(", ") if part not in shared)


def read(folder: Path) -> Run:
    """Return a run from its folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give run folders, or the folder of a sweep.")
    return _read(folder, finished.finished(folder))


def _read(folder: Path, source: Finished | None) -> Run:
    failure = folder / FAILURE
    if source:
        return _finished(folder, source)
    if failure.exists():
        record = read_object(failure)
        config = _config(failure, json.dumps(record.get("config")))
        code = record.get("exit_code", 1)
        if type(code) is not int:
            raise DataError(f"{failure} states the exit code {code!r}, expected a number.")
        return Run(folder, _key(config), config.seed, config, None, code)
    raise DataError(why_not_finished(folder))


def _finished(folder: Path, source: Finished) -> Run:
    found = result.read(source)
    config, summary = found.config, found.facts
    if config is not None:
        return Run(folder, _key(config), config.seed, config, summary, source=source)
    task, encoder, pooler, options = (summary.get(name, "") for name in ("task", "encoder", "pooler", "options"))
    if any(type(name) is not str for name in (task, encoder, pooler, options)) or type(summary.get("seed")) is not int:
        raise DataError(f"{folder / SUMMARY} is not the summary of a run: it must name task, encoder, pooler and seed.")
    key = Key(task, encoder, pooler, options, "", summary.get("objective", BEFORE))
    return Run(folder, key, summary["seed"], None, summary, source=source)


def _config(path: Path, text: str) -> Config:
    try:
        return from_json(text)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None


def _key(config: Config) -> Key:
    changes = {path: value for path, value in config_changes(config).items() if path not in repeats(config)}
    pool = {path: value for path, value in changes.items() if path.startswith(OF_POOLER)}
    setting = {path: value for path, value in changes.items() if path not in pool}
    return Key(config.task, config.encoder, config.pooler, in_words(setting), in_words(pool), config.objective)


def collect(folders: Iterable[Path]) -> list[Run]:
    """Return the runs of run folders and of folders of sweeps; in a sweep, cells without a result are left out."""
    runs = []
    for folder in folders:
        inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        results = [path for path in inside if _has_result(path)]
        if not results or _has_result(folder):
            runs.append(read(folder))
            continue
        for path in results:
            source = finished.finished(path)
            if source is None and not (path / FAILURE).exists():
                print(f"{why_not_finished(path)} It is left out.", file=sys.stderr)
            else:
                runs.append(_read(path, source))
    return runs


def warn_unverified(rows: Iterable[Row]) -> None:
    """Say in one line which runs of some rows are from before there were manifests."""
    finished.warn_unverified([run.source for row in rows for run in row.finished])


def _has_result(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (SUMMARY, FAILURE, MANIFEST))


def rows(runs: Sequence[Run]) -> list[Row]:
    """Return the runs by configuration, in the order of their keys, whatever the order of the folders."""
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.key].append(run)
    result = []
    for key, group in sorted(groups.items(), key=lambda item: [natural(part) for part in item[0]]):
        group.sort(key=lambda run: run.repeat)
        for one, other in pairwise(group):
            if one.repeat == other.repeat:
                raise DataError(f"{one.folder} and {other.folder} are the same run: give one of them.")
        finished = tuple(run for run in group if run.summary is not None)
        result.append(Row(key, finished, tuple(run for run in group if run.summary is None)))
    return result
