"""A profile of ten training steps, after the first ones, which compile."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax

FIRST, STEPS = 10, 10


class Trace:
    """Traces steps of one session into a folder; without a folder it does nothing."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._turn = 0
        self._running = False

    def step(self, step: int) -> AbstractContextManager[None]:
        """Return what a training step is done in."""
        if self._folder is None:
            return nullcontext()
        if self._turn == FIRST:
            jax.profiler.start_trace(self._folder)
            self._running = True
        if self._turn == FIRST + STEPS:
            self.close()
        self._turn += 1
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def close(self) -> None:
        """Write the trace if it is still open."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
