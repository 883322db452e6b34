"""Mutated run folders and random command lines; the figures of long runs are in docs/reliability.md."""

import pytest

from tests.harness import fuzz

KINDS = {"folders": 1, "lines": 10}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_ends_in_a_result_or_in_one_line(kind):
    """A few cases, in a process of their own."""
    figures, failures = fuzz.run(kind, seed=3, count=KINDS[kind])
    assert not failures, figures


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_of_it(kind):
    figures, failures = fuzz.run(kind, seed=0, count=200)
    print(figures)
    assert not failures, figures
