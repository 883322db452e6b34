"""Where the time goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by name; every second belongs to one name, the innermost block that measures."""

    def __init__(self, entered: Callable[[str], object] = lambda name: None) -> None:
        """`entered` is called with the name that time belongs to from now on."""
        self._entered = entered
        self.seconds: dict[str, float] = defaultdict(float)
        self._names: list[str] = []
        self._mark = 0.0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time that the block takes, without that of blocks inside."""
        self.turn()
        self._names.append(name)
        self._entered(name)
        try:
            yield
        finally:
            self.turn()
            self._names.pop()
            if self._names:
                self._entered(self._names[-1])

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count seconds of one name for another one."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def turn(self) -> None:
        """Give the time since the last turn to the name that it belongs to."""
        now = time.perf_counter()
        if self._names:
            self.seconds[self._names[-1]] += now - self._mark
        self._mark = now
