"""The random search, short and long, and its oracle against the table of mpmath."""

import itertools

import numpy as np
import pytest

from tests.op import search, table
from tests.op.make_table import GROUPS, flushed
from tests.op.oracle import WIDE, solve
from tests.op.search import Program

QUICK = Program("linear", "xla", "small")
FOUND = [
    # e^139 in the form that was not chosen: NaN in second order
    (Program("linear", "xla", "rows", sharpen=False, second=True, log_output=True), 6),
    # p = 1e4 and -426: a rounding of d in one of two passes, times p, was a share of the sum
    (Program("linear", "xla", "packed"), 911809260),
    (Program("linear", "xla", "packed", sharpen=False), 1186338836),
    # p = 10.2: the roundings of log(h/reference) and log(r/reference), times p
    (Program("linear", "xla", "large"), 23),
    # h/reference = 1.2e-37: a derivative of it was no normal number, and so 0
    (Program("linear", "xla_jvp", "rows", sharpen=False, second=True, log_output=True), 530731016),
    # r = 0 and p = -2e-20: derivatives held 1/p^2, which is no float, times 0: NaN in second order
    (Program("log", "xla", "rows", sharpen=False, second=True, log_output=True), 1674875545),
]


def test_short_search_finds_nothing():
    report = search.search(rows=2000, seed=1, chosen=[QUICK])
    assert report.rows >= 2000
    assert not report.faults, "\n".join(report.lines())


def of_form(form: str) -> list[Program]:
    """Every layout once; implementations and kinds of attention take turns, so that over the forms a layout has all."""
    f, every = search.FORMS.index(form), {(x.form, x.layout, x.implementation, x.sharpen): x for x in search.programs()}
    return [
        every[form, layout, search.IMPLEMENTATIONS[(f // 2 + i // 2) % 2], (f + i) % 2 == 0]
        for i, layout in enumerate(search.LAYOUTS)
    ]


def test_every_layout_meets_every_implementation_and_kind_of_attention():
    chosen = {(x.layout, x.implementation, x.sharpen) for form in search.FORMS for x in of_form(form)}
    assert chosen == {*itertools.product(search.LAYOUTS, search.IMPLEMENTATIONS, (True, False))}


@pytest.mark.slow
@pytest.mark.parametrize("form", search.FORMS)
def test_long_search_finds_nothing(form):
    """``python -m tests.op.search`` goes through all four programs of every form and layout."""
    report = search.search(rows=20_000, seed=2, chosen=of_form(form))
    print("\n".join(report.lines()))
    assert not report.faults, "\n".join(report.lines())


@pytest.mark.slow
@pytest.mark.parametrize(("program", "seed"), FOUND, ids=[str(seed) for _, seed in FOUND])
def test_what_a_longer_search_has_found(program, seed):
    """The fault was seen in programs that are compiled as users do (``--optimised``)."""
    report = search.Report()
    search.search_once(program, seed, report)
    assert not report.faults, "\n".join(report.lines())


@pytest.mark.parametrize("group", ["linear", "long", "fixed", "log", "free_log"])
def test_oracle_against_the_table(group):
    """Every row at every exponent, to a few roundings of float64, in which the table is kept."""
    stored, like = table.load(group), GROUPS[group]
    states = stored["states"] if like.log_states else flushed(stored["states"])
    shape = stored["r"].shape
    with np.errstate(all="ignore"):
        u = states.astype(WIDE) if like.log_states else np.log(states.astype(WIDE))
    rows = lambda x: np.broadcast_to(x[:, :, None], (*shape, x.shape[-1])).reshape(-1, x.shape[-1])  # noqa: E731
    p = np.broadcast_to(stored["p"], shape).reshape(-1)
    found = solve(rows(u), rows(stored["scores"]), p, rows(stored["mask"]), like.sharpen)
    scale = np.maximum(found.r, WIDE(1e-300))
    for name, got, bound in (
        ("r", found.r, 1e-15),
        ("dz", found.r * found.b, 1e-12),
        ("dp", found.r * found.slope, 1e-9),
    ):
        error = np.abs(got - stored[name].reshape(got.shape)) / scale
        assert error.max() <= bound, f"{name}: {error.max()}"


def test_a_wrong_answer_is_found(monkeypatch):
    """The search compares: a value that is off by 1 % and a NaN are faults."""
    true = search.compiled(QUICK)
    for spoil in (lambda x: 1.01 * x, lambda x: np.nan * x):
        monkeypatch.setattr(
            search, "compiled", lambda _, spoil=spoil: lambda *a: {k: spoil(x) for k, x in true(*a).items()}
        )
        report = search.Report()
        search.search_once(QUICK, 0, report)
        assert report.faults
