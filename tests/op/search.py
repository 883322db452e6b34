"""Random search for wrong answers: rows drawn by seed, every form and implementation, against a wide-float oracle.

    python -m tests.op.search --rows 1000000 --seed 0

prints the rows searched, the worst ratio of an error to its mark for each output, and every fault. A *row* is one text
and one feature: value, gradients by states, scores and p with a random cotangent, a jvp, and the directional derivative
of the gradients (second order).
"""

import argparse
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np

import lnpool
from tests.op.search_draw import Problem, draw
from tests.op.search_exact import OUTPUTS, Expected, expected
from tests.op.tolerances import SEARCH_MARKS

LIMITS = tuple(lnpool.SCALE_LIMITS)
FORMS = ("linear", "log", "bounded 1", "bounded 5", *LIMITS)
LAYOUTS = ("rows", "small", "large", "packed", "packed large", "features", "heads")
IMPLEMENTATIONS = ("xla", "xla_jvp")


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled once: the static facts of a call, and how problems are laid out in it."""

    form: str
    implementation: str = "xla"
    layout: str = "rows"
    sharpen: bool = True
    second: bool = False
    log_output: bool = False

    def options(self) -> dict:
        """The static options of ``pool``."""
        options = {"implementation": self.implementation, "sharpen": self.sharpen, "log_output": self.log_output}
        if self.form in LIMITS:
            return options | {"scale_limit": self.form}
        if self.form == "linear":
            return options
        bound = float(self.form.split()[1]) if self.form.startswith("bounded") else None
        return options | {"log_states": True, "log_bound": bound}


@functools.cache
def compiled(program: Program):
    """(states, scores, p, mask, ids, g, directions) -> the outputs that the program can give, by name."""
    options = program.options()

    def pool(states, scores, p, mask, ids):
        if program.layout.startswith("packed"):
            texts = {"segment_ids": ids[0], "num_segments": ids[1].size}
            return lnpool.pool_packed(states, scores, p, mask=mask, **texts, **options)
        if program.layout == "rows":
            one = lambda s, z, e, m: lnpool.pool(s[:, None], z, e, mask=m, **options)[0]  # noqa: E731
            return jax.vmap(one)(states, scores, p, mask)
        return lnpool.pool(states, scores, p, mask=mask, **options)

    def run(arguments, mask, ids, g, directions):
        f = lambda *a: pool(*a, mask, ids)  # noqa: E731
        value, pullback = jax.vjp(f, *arguments)
        out = dict(zip(("r", "dstates", "dz", "dp"), (value, *pullback(g)), strict=True))
        if program.implementation == "xla_jvp":
            out["jvp"] = jax.jvp(f, arguments, directions)[1]
        if program.second:
            gradients = lambda *a: jax.vjp(f, *a)[1](g)  # noqa: E731
            if program.implementation == "xla_jvp":
                curved = jax.jvp(gradients, arguments, directions)[1]
            else:  # the second derivative is symmetric: its transpose is itself
                curved = jax.vjp(gradients, *arguments)[1](directions)
            out |= dict(zip(("hstates", "hz", "hp"), curved, strict=True))
        return out

    return jax.jit(run)


@dataclasses.dataclass
class Report:
    """What a search has found so far."""

    rows: int = 0
    worst: dict = dataclasses.field(default_factory=dict)  # output -> (ratio to its mark, where)
    faults: list = dataclasses.field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report in words."""
        yield f"{self.rows} rows searched, {len(self.faults)} faults"
        for name, (ratio, where) in self.worst.items():
            yield f"  {name:8} worst error {ratio:.3f} of its mark, at {where}"
        yield from (f"FAULT {fault}" for fault in self.faults[:50])


def search_once(program: Program, seed: int, report: Report) -> None:
    """Draw the problems of one call, run it, and compare."""
    problem = draw(program, np.random.default_rng(seed))
    report.rows += problem.count
    try:
        got = jax.tree.map(np.asarray, compiled(program)(*problem.arrays()))
    except Exception as error:  # a program that does not run is a fault like any other
        report.faults.append(f"{type(error).__name__}: {str(error).splitlines()[0]}: {program} seed={seed}")
        return
    want = expected(program, problem, second=program.second)
    for name in OUTPUTS:
        if name in got:
            compare(name, got[name], want[name], f"{program} seed={seed} family={problem.family}", report, problem)


def compare(name: str, got, want: Expected, where: str, report: Report, problem: Problem) -> None:
    """Non-finite where the exact number is a float is a fault, and so is an error above its mark."""
    got = got.astype(np.longdouble)
    mark = SEARCH_MARKS[name][problem.extreme]
    with np.errstate(all="ignore"):
        ratio = np.where(want.relevant, np.abs(got - want.exact) / (mark * want.noise), 0)
    ratio = np.where(want.relevant & ~np.isfinite(got), np.inf, ratio)
    at = np.unravel_index(np.argmax(ratio), ratio.shape) if ratio.size else ()
    worst = float(ratio[at]) if ratio.size else 0.0
    p = problem.p if problem.layout != "rows" else problem.p[at[0]]
    place = f"{where} index={tuple(map(int, at))} p={p} got={got[at]:.6g} exact={want.exact[at]:.6g}"
    if worst > report.worst.get(name, (-1.0, ""))[0]:
        report.worst[name] = (worst, place)
    if worst > 1:
        report.faults.append(f"{name} {worst:.3g} of its mark: {place}")


def programs() -> list[Program]:
    """Every program of the search; second order for small layouts, where it is quick to compile."""
    found = []
    for form, implementation, layout, sharpen in itertools.product(FORMS, IMPLEMENTATIONS, LAYOUTS, (True, False)):
        log_output = form == "exp" or (form in ("linear", "log", "tanh") and layout == "rows" and not sharpen)
        found.append(Program(form, implementation, layout, sharpen, layout in ("rows", "small"), log_output))
    return found


def search(rows: int, seed: int, seconds: float = np.inf, chosen: list[Program] | None = None, log=None) -> Report:
    """Search until so many rows were seen, every program in turn and in an order that the seed draws."""
    rng, report, start = np.random.default_rng(seed), Report(), time.monotonic()
    every = programs() if chosen is None else chosen
    share = -(-rows // len(every))
    for i in rng.permutation(len(every)):
        before = report.rows
        while report.rows - before < share and time.monotonic() - start < seconds:
            search_once(every[i], int(rng.integers(2**31)), report)
        compiled.cache_clear()
        if log:
            log(f"{report.rows} rows, {len(report.faults)} faults, {time.monotonic() - start:.0f} s, {every[i]}")
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="at least so many rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long")
    parser.add_argument("--only", default="", help="programs whose text holds this word")
    arguments = parser.parse_args()
    chosen = [x for x in programs() if arguments.only in str(x)]
    report = search(arguments.rows, arguments.seed, arguments.seconds, chosen, log=lambda s: print(s, file=sys.stderr))
    print("\n".join(report.lines()))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
