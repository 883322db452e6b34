"""The page of `benchmarks.device`, from a record and from processes that are made up; the real ones in a slow test."""

import re

import pytest

from benchmarks import device, table
from benchmarks.programs import BOTH, FORWARD
from benchmarks.rows import ATTENTION, OURS

GPU = {"platform": "gpu", "kind": "NVIDIA H100", "count": 2, "runtime": "cuda 12090", "memory": 2**34, "driver": "570"}
QUIET = device.Finished(0, "", "")


def row(about, forward, both):
    times = {FORWARD: [forward] * 3, BOTH: [both] * 3}
    return {
        "about": about,
        "skips_padding": False,
        "temporary": {FORWARD: 768, BOTH: 1536},
        "compilation": {FORWARD: 2.0, BOTH: 3.0},
        "milliseconds": times,
    }


def cell(fill, ours):
    rows = {ATTENTION: row("attention", 2.0, 4.0), OURS: row("our row", *ours)}
    return {"shape": "tiny", "fill": fill, "size": [4, 16, 24], "bytes": 6144, "real": 1, "rounds": 3, "heads": 8} | {
        "rows": rows
    }


RESULT = {
    "command": "benchmarks.pool", "date": "2026", "device": "2 x NVIDIA H100", "processor": "a processor",
    "cores": 2, "system": "Linux", "versions": {"jax": "0.9"}, "threads": {}, "clock": "device trace",
    "exponent": 2.5, "variables": {}, "notes": [], "load": {"before": [], "after": []},
    "cells": [cell("dense", (1.0, 3.0)), cell("ragged", (3.0, 5.0))],
}  # fmt: skip


def test_the_page_holds_device_tests_and_ratios():
    failed = device.Finished(1, "FAILED tests/op/test_device.py::test_x\n== 1 failed, 3 passed in 2s ==\n", "")
    text = device.page(GPU, failed, QUIET, RESULT)
    assert text.startswith("# Pooling on NVIDIA H100\n\n- 2 x NVIDIA H100 (gpu)\n- memory that JAX may use: 16.0 GiB a")
    assert "- driver 570\n- runtime: cuda 12090\n- tests marked gpu: 1 failed, 3 passed in 2s\n" in text
    assert "```\nFAILED tests/op/test_device.py::test_x\n```" in text
    assert "| form | 4x16x24, dense | 4x16x24, ragged | memory | compilation |\n" in text
    assert "| our row | 0.500 / 0.750 | 1.50 / 1.25 | 12.5% / 25.0% | 3.0 s |\n" in text
    assert table.whole(RESULT) in text
    broken = device.Finished(1, "", "Traceback\nOut of memory\n")
    assert "did not end: `Out of memory`" in device.page(GPU, failed, broken, None)


@pytest.mark.parametrize(("passed", "measured", "code"), [(True, RESULT, 0), (False, RESULT, 1), (True, None, 1)])
def test_the_command_runs_tests_and_benchmarks(passed, measured, code, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(device, "probe", lambda: GPU)
    monkeypatch.setattr(device, "test", lambda selected: device.Finished(int(not passed), "3 tests\n", str(selected)))
    monkeypatch.setattr(device, "measure", lambda arguments: (asked.extend(arguments) or QUIET, measured))
    file = tmp_path / "page.md"
    assert device.main(["--shapes", "long", "--seconds", "3", "--out", str(file)]) == code
    assert asked == ["--shapes", "long", "--seconds", "3.0"]
    assert file.read_text() == capsys.readouterr().out


def test_a_machine_without_an_accelerator_says_so(monkeypatch, capsys):
    monkeypatch.setattr(device, "probe", lambda: GPU | {"platform": "cpu"})
    assert device.main([]) == 2
    assert re.fullmatch("benchmarks.device: JAX sees no accelerator here; .*\n", capsys.readouterr().err)
    monkeypatch.undo()
    monkeypatch.setattr(device, "_python", lambda *_: device.Finished(1, "", "Traceback\nRuntimeError: no devices\n"))
    assert device.main([]) == 2
    assert "JAX found no device: RuntimeError: no devices" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_on_a_cpu(capsys):
    assert device.main(["--cpu"]) == 0
    assert re.search(r"tests marked gpu: \d+ passed", capsys.readouterr().out)
