"""The result of a finished run: its summary, read and in words."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.base.errors import DataError
from experiments.base.json_files import read_object
from experiments.objectives import OBJECTIVES
from experiments.storage.run_folder import SUMMARY


def in_words(facts: dict[str, Any]) -> str:
    """Return the test result as a sentence: the metrics that the objective shows, and the exponent."""
    test, p = facts["test"], facts["p"]
    shown = OBJECTIVES[facts.get("objective", "classify")].shown
    scores = ", ".join(f"{label} {float(test[name]):.4f}" for name, label in shown.items())
    exponent = "" if p is None else f" with p = {np.mean(p):.3f}" + " on average" * (np.size(p) > 1)
    return f"test {scores}{exponent}"


def result_of(folder: Path) -> dict[str, Any]:
    """Return the summary of a finished run."""
    facts = read_object(folder / SUMMARY) | {"folder": folder}
    try:
        in_words(facts), float(facts["seconds"]["total"]), facts["parameters"]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{folder / SUMMARY} is not the summary of a run: {error!r}.") from None
    return facts
