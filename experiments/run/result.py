"""The result of a finished run: its summary and records, read, checked and in words."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.base.errors import DataError, UsageError
from experiments.base.files import text
from experiments.base.json_files import object_of
from experiments.objectives import OBJECTIVES
from experiments.run.config import CONFIG, Config, from_json
from experiments.storage.finished import Finished, finished_run, warn_unverified
from experiments.storage.run_folder import METRICS, SUMMARY

BEFORE = "classify"
"""The objective of run folders that are older than the choice of one."""


class Result(NamedTuple):
    """What a finished run was and found, checked."""

    source: Finished
    config: Config | None
    """None for a baseline, which has no configuration of a network."""
    facts: dict[str, Any]


def in_words(facts: dict[str, Any]) -> str:
    """Return the test result as a sentence: the metrics that the objective shows, and the exponent."""
    test, p = facts["test"], facts["p"]
    shown = OBJECTIVES[facts.get("objective", BEFORE)].shown
    scores = ", ".join(f"{label} {float(test[name]):.4f}" for name, label in shown.items())
    exponent = "" if p is None else f" with p = {np.mean(p):.3f}" + " on average" * (np.size(p) > 1)
    return f"test {scores}{exponent}"


def result_of(folder: Path) -> dict[str, Any]:
    """Return the summary of a finished run, all of whose files are as they were written."""
    run = finished_run(folder)
    run.verify()
    warn_unverified([run])
    return read(run).facts | {"folder": folder}


def read(run: Finished) -> Result:
    """Return the result of a run, or raise DataError where its summary is none or is not of its configuration."""
    facts, where = run.summary, run.folder / SUMMARY
    config = configuration(run) if run.has(CONFIG) else None
    if config is not None:
        for name in ("task", "encoder", "pooler", "seed", "objective"):
            stated = getattr(config, name)
            found = facts.get(name, BEFORE if name == "objective" else stated)
            if type(found) is not type(stated) or found != stated:
                raise DataError(f"{where} states the {name} {found!r}, but {CONFIG} beside it {stated!r}.")
    check_numbers(facts, where)
    return Result(run, config, facts)


def configuration(run: Finished) -> Config:
    """Return the configuration of a run, or raise DataError."""
    try:
        return from_json(run.content(CONFIG))
    except UsageError as error:
        raise DataError(f"{run.folder / CONFIG}: {error}") from None


def check_numbers(facts: dict[str, Any], where: Path) -> None:
    """Raise DataError where a number of a summary is missing, of another type, not finite or out of its range."""
    objective = facts.get("objective", BEFORE)
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise DataError(f"{where} states the objective {objective!r}, which there is not.")
    kind = OBJECTIVES[objective]
    test, seconds = (facts.get(name) for name in ("test", "seconds"))
    if not isinstance(test, dict) or not isinstance(seconds, dict):
        raise DataError(f"{where} is not the summary of a run: it needs the objects test and seconds.")
    for name in (*kind.shown, *test):
        _check(where, f"test.{name}", test.get(name))
        if name in kind.shares and not 0 <= test[name] <= 1:
            raise DataError(f"{where} states test.{name} {test[name]!r}, expected a share of 1.")
    costs: dict[str, Any] = {"seconds.total": seconds.get("total"), "parameters": facts.get("parameters")}
    for name, value in costs.items():
        _check(where, name, value)
        if value < 0:
            raise DataError(f"{where} states {name} {value!r}, expected no negative number.")
    for name in ("steps", "skipped_steps", "fold"):
        if name in facts and (type(facts[name]) is not int or facts[name] < 0):
            raise DataError(f"{where} states {name} {facts[name]!r}, expected a count.")
    for name in ("tokens_per_second", "step_seconds"):
        if name in facts:
            _check(where, name, facts[name])
    validation, data = facts.get("validation", {}), facts.get("data", {})
    if not isinstance(validation, dict) or not isinstance(data, dict) or not isinstance(data.get("test", {}), dict):
        raise DataError(f"{where} is not the summary of a run: validation, data and data.test must be objects.")
    for name in kind.shown:
        if name in validation:
            _check(where, f"validation.{name}", validation[name])
    if "p" not in facts:
        raise DataError(f"{where} is not the summary of a run: it lacks p.")
    _check_exponents(where, facts["p"])


def validations(run: Finished, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of `metrics.jsonl`, or raise DataError; none for a run that has no such file."""
    if not run.has(METRICS):
        return []
    path, records = run.folder / METRICS, []
    shown = OBJECTIVES[facts.get("objective", BEFORE)].shown
    for number, line in enumerate(text(run.content(METRICS), path).splitlines(), start=1):
        where = f"{path}, line {number}"
        record = object_of(line, where)
        for name in ("step", "epoch", *(name for name in ("loss", *shown) if name in record)):
            _check(where, name, record.get(name))
        if record.get("train_loss") is not None:
            _check(where, "train_loss", record["train_loss"])
        _check_exponents(where, record.get("p"))
        records.append(record)
    return records


def _check(where: object, name: str, value: Any) -> None:
    """Raise DataError unless a value is a finite number."""
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise DataError(f"{where} states {name} {value!r}, expected a finite number.")


def _check_exponents(where: object, p: Any) -> None:
    """Raise DataError unless exponents are None, a finite number or an array of such."""
    if p is None:
        return
    try:
        found = np.asarray(p)
    except ValueError:  # lists of several lengths
        found = np.asarray(None)
    if found.dtype.kind not in "if" or not np.isfinite(found).all():
        raise DataError(f"{where} states p {p!r}, expected finite numbers.")
