"""Programs to milliseconds: rounds in which every program runs once, in an order that changes from round to round."""

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.cli import UsageError
from benchmarks.programs import Program

Clock = Callable[[Callable[[], Any]], tuple[float, Any]]  # a call to its milliseconds and its results

_MIN_ROUNDS, _MAX_ROUNDS = 5, 25


def host_clock(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time from the call until its results are there."""
    began = time.perf_counter()
    results = run()
    return 1e3 * (time.perf_counter() - began), results


def device_clock(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time in which the device was at work for the call, from a trace: no launch from Python, no transfer."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            results = run()
        traces = sorted(Path(folder).rglob("*.xplane.pb"))
        planes = [plane for trace in traces for plane in jax.profiler.ProfileData.from_file(str(trace)).planes]
    milliseconds = device_milliseconds(planes)
    if not milliseconds:
        raise UsageError("the trace of jax.profiler holds no time of a device: is its tracer installed?")
    return milliseconds, results


def device_milliseconds(planes: Iterable[Any]) -> float:
    """Sum the kernels on the streams of a GPU, the programs on a TPU; the other lines of a device repeat them."""
    events = (
        event
        for plane in planes
        if plane.name.startswith("/device:")
        for line in plane.lines
        if line.name.startswith("Stream") or (line.name == "XLA Modules" and ":TPU:" in plane.name)
        for event in line.events
    )
    return 1e-6 * sum(event.duration_ns for event in events)


def clock_of_this_machine() -> Clock:
    """Return the host's clock for a CPU, the device's own times for an accelerator."""
    return host_clock if jax.default_backend() == "cpu" else device_clock


def measure(programs: Sequence[Program], clock: Clock, rounds: int | None, seconds: float) -> list[list[float]]:
    """Return the milliseconds of every program, one a round.

    Args:
        programs: what to run; built and warm.
        clock: times one call.
        rounds: how many rounds; None for as many as fit into ``seconds``, from 5 to 25.
        seconds: ignored when ``rounds`` is given.
    """
    order, rng = list(range(len(programs))), random.Random(0)
    times: list[list[float]] = [[] for _ in programs]
    began = time.perf_counter()
    for done in range(rounds or _MAX_ROUNDS):
        if not rounds and done >= _MIN_ROUNDS and (time.perf_counter() - began) * (done + 1) / done > seconds:
            break
        rng.shuffle(order)
        for index in order:
            milliseconds, results = clock(programs[index].run)
            times[index].append(milliseconds)
            programs[index].drop(results)
            del results
    return times
