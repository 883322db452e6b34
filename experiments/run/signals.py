"""Asked to stop: the first signal sets a flag that the training loop looks at; the second one ends the process."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """While entered, SIGTERM or SIGINT sets `requested` to its name; another one then has its default effect.

    The handler only sets the flag: files are written by the loop, never by a handler. Outside the main thread, which
    alone receives signals, nothing is installed.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: the handler before was not Python's

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
