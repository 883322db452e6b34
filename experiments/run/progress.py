"""Progress of the first process on stderr: a bar on a terminal, plain lines elsewhere; stdout stays for results."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from experiments.base import devices

PHASES = {
    "start": "reading data",
    "compile": "compiling",
    "training": "training",
    "validation": "validating",
    "test": "testing",
}
"""What the bar says while the clock measures a name."""
ENOUGH = 5
"""Steps whose time is known before what is left is estimated from them."""
_WITHOUT_STEPS, _WITH_STEPS = "{desc}", "{desc} |{bar}| step {n_fmt} of {total_fmt}, {elapsed} passed{postfix}"


class Progress:
    """Says what a run does, counts its steps, and shows the last validation and, once it is known, the time left."""

    def __init__(self, shown: Mapping[str, str]):
        self._shown = shown
        self._says = devices.is_first()
        is_shown = self._says and sys.stderr.isatty()
        options = {"file": sys.stderr, "disable": not is_shown, "dynamic_ncols": True, "bar_format": _WITHOUT_STEPS}
        self._bar = tqdm(desc=PHASES["start"], total=0, **options)
        self._seconds: dict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._phase, self._since = "start", time.perf_counter()
        self._validations = 0
        self._scores = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.leave = kind is None
        self._bar.close()

    def begin(self, steps: int, validations: int) -> None:
        """Show a bar of so many steps, with so many validations between them."""
        self._bar.total, self._bar.bar_format, self._validations = steps, _WITH_STEPS, validations

    def phase(self, name: str) -> None:
        """Say what the run does now, by the name under which the clock measures it."""
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = name, now
        if name in PHASES and not self._bar.disable and self._bar.desc != f"{PHASES[name]}: ":
            self._bar.set_description(PHASES[name])

    def resume(self, steps: int) -> None:
        """Count the steps that the run has made before it was stopped."""
        self._bar.update(steps)

    def step(self) -> None:
        """Count one step."""
        self._counts["training"] += 1
        self._bar.update()
        self._tell()

    def say(self, sentence: str) -> None:
        """Show a sentence, if it is one, on a line of its own."""
        if self._says and sentence:
            self._bar.write(f"experiments.train: {sentence}", file=sys.stderr)
            sys.stderr.flush()

    def validation(self, record: dict[str, Any]) -> None:
        """Show a validation."""
        self._counts["validation"] += 1
        numbers = {label: record[name] for name, label in {"loss": "loss", **self._shown}.items() if name in record}
        if isinstance(record.get("p"), float):
            numbers["p"] = record["p"]
        shown = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
        if not self._says:
            return
        if self._bar.disable:
            print(f"epoch {record['epoch']:.1f}: validation {shown}", file=sys.stderr, flush=True)
        else:
            self._scores = f"validation {shown}"
            self._tell()

    def left(self) -> float | None:
        """Return the estimated seconds of the steps and validations that are left; None while nothing is known.

        Time of compilation is not in it: it is not repeated.
        """
        steps, validations = self._counts["training"], self._counts["validation"]
        if steps < ENOUGH:
            return None
        seconds = self._seconds["training"] / steps * (self._bar.total - self._bar.n)
        if validations:
            seconds += self._seconds["validation"] / validations * max(self._validations - validations, 0)
        return seconds

    def _tell(self) -> None:
        """Put the time left and the last validation behind the bar."""
        if not self._bar.disable:
            left = self.left()
            parts = [] if left is None else [f"about {tqdm.format_interval(left)} left"]
            self._bar.set_postfix_str(", ".join([*parts, *filter(None, [self._scores])]), refresh=False)
