"""Memory and time of full, local, atrous and sparse attention: `python -m benchmarks.attention`.

The bytes are those that the compiled program needs beside arguments and results, so they do not depend on the machine's
load. The times are of interleaved rounds; their ratios are taken between times of one round, and the median is printed.
Prints a Markdown table.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.cli import Parser, UsageError, command
from benchmarks.programs import BOTH, FORWARD, fresh, temporary
from experiments.layers.attention import Attention, atrous, full, local, sparse

PROGRAM = "benchmarks.attention"
FULL_ROW = "full |  | "
MIB = 2**20


def forms(spans: list[int], causal: bool) -> dict[str, Attention]:
    """Return full attention, and each sparse form at every span, by what is printed of them."""
    rows: dict[str, Attention] = {FULL_ROW: full}
    rows |= {f"local | {span} | ": partial(local, window=span) for span in spans}
    rows |= {f"atrous |  | {span}": partial(atrous, rate=span) for span in spans}
    rows |= {f"sparse | {span} | {span}": partial(sparse, window=span, rate=span) for span in spans}
    return {name: partial(form, causal=causal) for name, form in rows.items()}


def modes(form: Attention) -> dict[str, Callable[..., Any]]:
    """Return the forward pass, and the one with all gradients, as functions of q, k, v, cotangent and mask."""

    def forward(q: Any, k: Any, v: Any, cotangent: Any, mask: Any) -> Any:
        return form(q, k, v, mask)

    def both(q: Any, k: Any, v: Any, cotangent: Any, mask: Any) -> Any:
        value, pullback = jax.vjp(lambda *x: form(*x, mask), q, k, v)
        return value, *pullback(cotangent)

    return {FORWARD: forward, BOTH: both}


def temporaries(form: Attention, shape: tuple[int, int, int, int]) -> dict[str, int | None]:
    """Return the bytes of temporaries, forward and with backward, at a shape [B T N H] in float32; nothing is run."""
    array, mask = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:2], bool)
    return {
        mode: temporary(jax.jit(function).lower(*[array] * 4, mask).compile()) for mode, function in modes(form).items()
    }


def measured(
    rows: dict[str, Attention], shape: tuple[int, int, int, int], rounds: int | None, seconds: float
) -> dict[tuple[str, str], np.ndarray]:
    """Return the milliseconds of every row and mode, one a round, on random inputs."""
    draws = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    inputs = (*map(jnp.asarray, draws), jnp.ones(shape[:2], bool))
    programs = [fresh(name, mode, run, inputs) for name, form in rows.items() for mode, run in modes(form).items()]
    for program in programs:
        program.drop(program.run())
    times = timing.measure(programs, timing.clock_of_this_machine(), rounds, seconds)
    return {(program.row, program.mode): np.asarray(each) for program, each in zip(programs, times, strict=True)}


def line(name: str, bytes_of: dict[str, dict[str, int | None]], times: dict[tuple[str, str], np.ndarray]) -> str:
    """Return the row of a form: its temporaries and its times, absolute and beside those of full attention."""
    cells = [name]
    for mode in (FORWARD, BOTH):
        own, whole = bytes_of[name][mode], bytes_of[FULL_ROW][mode]
        cells += ["not counted"] * 2 if own is None or not whole else [f"{own / MIB:.1f}", f"{own / whole:.3f}"]
    for mode in (FORWARD, BOTH):
        own_times, whole_times = times[name, mode], times[FULL_ROW, mode]
        cells += [f"{np.median(own_times):.0f}", f"{np.median(own_times / whole_times):.2f}"]
    return f"| {' | '.join(cells)} |"


def run(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Memory and time of the forms of attention.")
    parser.add_argument("--tokens", type=int, default=4096, metavar="T", help="words of a text; default: 4096")
    parser.add_argument("--batch-size", type=int, default=1, metavar="B", help="texts; default: 1")
    parser.add_argument("--heads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--features", type=int, default=64, metavar="H", help="numbers of a head; default: 64")
    parser.add_argument(
        "--spans", type=int, nargs="+", default=[16, 64], metavar="N", help="windows and rates; default: 16 64"
    )
    parser.add_argument("--causal", action="store_true", help="no token reads a later one")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds; default: 5 to 25, as fit into --seconds")
    parser.add_argument("--seconds", type=float, default=30, metavar="S", help="for the rounds; default: 30")
    options = parser.parse_args(arguments)
    shape = (options.batch_size, options.tokens, options.heads, options.features)
    if min(*shape, *options.spans, 1 if options.rounds is None else options.rounds) < 1:
        raise UsageError("--tokens, --batch-size, --heads, --features, --spans and --rounds must be 1 or more")
    rows = forms(options.spans, options.causal)
    bytes_of = {name: temporaries(form, shape) for name, form in rows.items()}
    times = measured(rows, shape, options.rounds, options.seconds)
    heads = [f"{what}, {mode}" for what in ("MiB of temporaries", "ms") for mode in ("forward", "with backward")]
    print(f"| attention | window | rate |{''.join(f' {head} | to full |' for head in heads)}\n|{' --- |' * 11}")
    for name in rows:
        print(line(name, bytes_of, times))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
