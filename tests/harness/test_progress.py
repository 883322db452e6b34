"""What the bar of a run says: what goes on from the first moment, labelled numbers, no estimate without a ground."""

import io
import sys

import pytest

from experiments.run import progress
from experiments.run.clock import Clock
from experiments.run.progress import Progress
from experiments.train import main
from tests.harness.conftest import TINY


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_terminal(monkeypatch) -> Terminal:
    """Let stderr be a terminal; in the test itself, because pytest sets it anew between a fixture and its test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def moment(monkeypatch):
    """The seconds that the clock shows, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_phases_follow_the_clock(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with Progress({}) as bar:
        assert "reading data" in terminal.getvalue(), "before anything is measured"
        clock = Clock(bar.phase)
        with clock.measure("start"):
            pass
        bar.begin(10, 3)
        with clock.measure("other"):
            for name, said in (("training", "training"), ("validation", "validating"), ("test", "testing")):
                with clock.measure(name):
                    with clock.measure("compile"):
                        assert terminal.getvalue().rpartition("\r")[2].startswith("compiling")
                    assert terminal.getvalue().rpartition("\r")[2].startswith(said)


def test_the_estimate_leaves_out_compilation_and_what_is_not_known(monkeypatch, moment):
    terminal = at_terminal(monkeypatch)
    with Progress({}) as bar:
        bar.begin(100, 3)
        bar.phase("compile")
        moment[0] += 1000
        bar.phase("training")
        for step in range(10):
            assert (bar.left() is None) == (step < progress.ENOUGH)
            assert ("left" in terminal.getvalue()) == (step >= progress.ENOUGH)
            moment[0] += 2
            bar.phase("training")
            bar.step()
            bar._bar.refresh()
        assert bar.left() == pytest.approx(180)
        bar.phase("validation")
        moment[0] += 30
        bar.phase("other")
        bar.validation({"loss": 0.5, "epoch": 0.1})
        assert bar.left() == pytest.approx(180 + 2 * 30)
        bar._bar.refresh()
        last = terminal.getvalue().rpartition("\r")[2]
        assert "step 10 of 100" in last
        assert "about 04:00 left, validation loss 0.5" in last


def test_steps_of_before_count_for_the_bar_and_not_for_the_time(monkeypatch, moment):
    at_terminal(monkeypatch)
    with Progress({}) as bar:
        bar.begin(100, 1)
        bar.resume(50)
        bar.phase("training")
        for _ in range(5):
            moment[0] += 1
            bar.phase("training")
            bar.step()
        assert bar.left() == pytest.approx(45)


def test_a_mistake_in_the_data_leaves_one_line(monkeypatch, tmp_path):
    terminal = at_terminal(monkeypatch)
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    assert main(["--task", "file", "--path", str(tmp_path / "a.csv")]) == 65
    shown = terminal.getvalue().rpartition("\r")[2]
    assert shown.startswith("experiments.train: ")
    assert shown.count("\n") == 1


def test_a_run_says_what_it_does(monkeypatch, tmp_path):
    terminal = at_terminal(monkeypatch)
    assert main([*TINY, "--epochs", "1", "--pooler", "mean", "--out", str(tmp_path / "run")]) == 0
    said = terminal.getvalue()
    places = [said.index(f"{phase}: ") for phase in ("reading data", "compiling", "training", "testing")]
    assert places == sorted(places)
    assert "validation loss" in said
    assert "?" not in said
    assert "\rexperiments.train: only 81 texts for validation and 81 texts for test: with fewer than 100" in said
