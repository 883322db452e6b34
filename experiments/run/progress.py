"""Progress of the first process on stderr: a bar on a terminal, plain lines elsewhere; stdout stays for results."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from experiments.base import devices


class Progress:
    """Counts steps and shows the loss, the exponent and the chosen metrics of the last validation."""

    def __init__(self, steps: int, shown: Mapping[str, str]):
        self._shown = shown
        self._says = devices.is_first()
        is_shown = self._says and sys.stderr.isatty()
        self._bar = tqdm(total=steps, unit="step", file=sys.stderr, disable=not is_shown, dynamic_ncols=True)

    def step(self, steps: int = 1) -> None:
        """Count one step, or those of the run that is gone on with."""
        self._bar.update(steps)

    def say(self, sentence: str) -> None:
        """Show a sentence on a line of its own."""
        if self._says:
            self._bar.write(f"experiments.train: {sentence}", file=sys.stderr)
            sys.stderr.flush()

    def validation(self, record: dict[str, Any]) -> None:
        """Show a validation."""
        numbers = {"loss": record["loss"], **{label: record[name] for name, label in self._shown.items()}}
        if isinstance(record.get("p"), float):
            numbers["p"] = record["p"]
        shown = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
        if not self._says:
            return
        if self._bar.disable:
            print(f"epoch {record['epoch']:.1f}: validation {shown}", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix_str(shown)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
