"""From a row at a shape to programs that are compiled, warm, and ready to be timed."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import torch_rows
from benchmarks.rows import COPY, Row, prepare
from benchmarks.shapes import Arrays

FORWARD, BOTH, DONATED = MODES = ("forward", "forward+backward", "forward+backward, donated")


class Program(NamedTuple):
    """One row in one mode. ``run`` returns when the results are there; ``drop`` frees them, outside of the clock."""

    row: str
    mode: str
    run: Callable[[], Any]
    drop: Callable[[Any], None]
    temporary: int | None = None  # bytes that the program needs beside arguments and results; None: nobody counts them
    compilation: float | None = None  # seconds that the compiler took; None: nobody measured them


def build(row: Row, arrays: Arrays) -> list[Program]:
    """Compile a row in every mode that it has, and run each program once."""
    programs = (_of_torch if row.name.startswith("torch:") else _of_jax)(row, arrays)
    for program in programs:
        program.drop(program.run())
    return programs


def _of_jax(row: Row, arrays: Arrays) -> list[Program]:
    pool, inputs = prepare(row, arrays)
    inputs = jax.device_put(inputs)
    if row.name == COPY:
        return [_in_place(row, FORWARD, pool, inputs)]
    programs = [fresh(row.name, FORWARD, pool, inputs)]
    if row.backward:
        cotangent = jnp.asarray(arrays.cotangent, inputs[0].dtype)
        both = _forward_and_backward(pool)
        programs.append(fresh(row.name, BOTH, both, (*inputs, cotangent)))
        if row.donated:
            programs.append(_in_place(row, DONATED, both, (*inputs, cotangent)))
    return programs


def _forward_and_backward(pool: Callable[..., Any]) -> Callable[..., Any]:
    """The gradients and the pooled states: all are results, so that XLA cannot leave any of them out."""

    def both(states: Any, scores: Any, p: Any, mask: Any, cotangent: Any) -> Any:
        pooled, pull = jax.vjp(lambda *x: pool(*x, mask), states, scores, p)
        return *pull(cotangent), pooled

    return both


def fresh(row: str, mode: str, function: Callable[..., Any], inputs: Sequence[Any]) -> Program:
    """Return a program whose results are in memory that the call allocates, as outside of a training step."""
    compiled, seconds = _compile(jax.jit(function), inputs)

    def drop(results: Any) -> None:
        for array in jax.tree.leaves(results):
            array.delete()

    return Program(row, mode, lambda: jax.block_until_ready(compiled(*inputs)), drop, temporary(compiled), seconds)


def _compile(program: Any, inputs: Sequence[Any]) -> tuple[Any, float]:
    """Return the compiled program, and the seconds that it took to trace and compile it."""
    began = time.perf_counter()
    compiled = program.lower(*inputs).compile()
    return compiled, time.perf_counter() - began


def _in_place(row: Row, mode: str, function: Callable[..., Any], inputs: Sequence[Any]) -> Program:
    """The first result, as large as the states, in the memory of the call before: no fresh pages."""
    program = jax.jit(lambda spare, *x: function(*x), donate_argnums=0, keep_unused=True)
    compiled, seconds = _compile(program, (inputs[0], *inputs))
    spare = [jnp.zeros_like(inputs[0])]

    def drop(results: Any) -> None:
        spare[0], *rest = jax.tree.leaves(results)
        for array in rest:
            array.delete()

    def run() -> Any:
        return jax.block_until_ready(compiled(spare[0], *inputs))

    return Program(row.name, mode, run, drop, temporary(compiled), seconds)


def temporary(compiled: Any) -> int | None:
    """Return the bytes that a compiled program needs beside arguments and results; None where nobody counts them."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def _of_torch(row: Row, arrays: Arrays) -> list[Program]:
    torch = torch_rows.torch
    pool, inputs = torch_rows.tensors(row, arrays)
    cotangent = torch.from_numpy(arrays.cotangent)
    wanted = [x.requires_grad_() for x in inputs if x is not None and x.is_floating_point()]

    def forward() -> Any:
        with torch.no_grad():
            return pool(*inputs)

    def both() -> Any:
        pooled = pool(*inputs)
        return *torch.autograd.grad(pooled, wanted, cotangent, allow_unused=True), pooled

    def drop(results: Any) -> None:
        del results

    return [Program(row.name, mode, run, drop) for mode, run in ((FORWARD, forward), (BOTH, both))]
