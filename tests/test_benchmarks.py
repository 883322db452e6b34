"""The benchmarks run end to end on a tiny shape, and every row computes what it says. No test looks at a time."""

import dataclasses
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import device, million, page, pool, rows, shapes, steps, table, targets, timing, torch_rows
from benchmarks.cli import UsageError
from benchmarks.programs import BOTH, DONATED, FORWARD, build
from experiments.run.build import task as build_task
from experiments.run.config import default_config

TORCH = ["torch:gem", "torch:power-mean"] if torch_rows.torch else []
SELECTED = ["jax:naive", rows.OURS, rows.AGAIN, *TORCH]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    file = tmp_path_factory.mktemp("measured") / "result.json"
    assert pool.main(["--shapes", "tiny", "--rounds", "2", "--rows", *SELECTED, "--out", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def result(measured):
    return json.loads(measured.read_text())


def test_the_record_says_what_ran_and_where(result, measured):
    assert [(cell["shape"], cell["fill"]) for cell in result["cells"]] == [("tiny", "dense"), ("tiny", "ragged")]
    assert str(measured.parent) not in measured.read_text()
    assert result["command"].startswith("python -m benchmarks.pool --shapes tiny --rounds 2 --rows jax:naive ")
    assert set(result) >= {"device", "processor", "cores", "threads", "versions", "date", "clock", "exponent", "load"}
    assert result["versions"]["jax"] == jax.__version__
    assert len(result["load"]["before"]) == len(result["load"]["after"]) == 3
    assert bool(result["notes"]) == (torch_rows.torch is None)


def test_every_row_has_a_time_a_round(result):
    for cell in result["cells"]:
        assert cell["rounds"] == 2
        assert set(cell["rows"]) >= {*rows.YARDSTICKS, "jax:naive", rows.OURS, rows.AGAIN, *TORCH}
        assert all(len(times) == 2 for row in cell["rows"].values() for times in row["milliseconds"].values())
        assert set(cell["rows"][rows.OURS]["milliseconds"]) == {FORWARD, BOTH, DONATED}
        assert set(cell["rows"][rows.READ]["milliseconds"]) == {FORWARD}
        assert isinstance(cell["rows"][rows.OURS]["temporary"][BOTH], int)
        assert cell["rows"][rows.OURS]["compilation"][BOTH] > 0


def test_the_page_is_a_function_of_the_record(measured, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    assert page.main([str(measured), "--page", str(path)]) == 0
    first = path.read_text()
    assert page.main([str(measured), "--page", str(path)]) == 0
    assert path.read_text() == first
    assert first.startswith("# Title\n\n")
    assert first.endswith("\n\nafter\n")
    assert "\nold\n" not in first
    assert first.count("<summary>tiny 4x16x24") == 2
    assert "| form | 4x16x24, dense | memory | compilation |" in first
    widths = {line.count("|") for line in table.one(json.loads(measured.read_text())["cells"][0]).splitlines()}
    assert len(widths) == 1


def test_the_page_of_the_project_has_its_markers():
    text = (pool.Path(__file__).parent.parent / page.PAGE).read_text()
    assert text.index(page.BEGIN) < text.index(page.END)


def test_the_figure_is_drawn(measured, tmp_path):
    pytest.importorskip("matplotlib")
    path, figure = tmp_path / "page.md", tmp_path / "figure.png"
    path.write_text(page.BEGIN + page.END)
    assert page.main([str(measured), "--page", str(path), "--plot", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def times(milliseconds):
    return {"milliseconds": {mode: [value] * 3 for mode, value in milliseconds.items()}}


def test_targets_compare_with_the_promises(tmp_path, capsys):
    cell = {
        "shape": "long",
        "fill": "dense",
        "size": [32, 2048, 512],
        "rows": {
            rows.ATTENTION: times({FORWARD: 1.0, BOTH: 10.0}),
            rows.OURS: times({FORWARD: 3.0, BOTH: 7.0}),
            "xla:linear": times({FORWARD: 2.0, BOTH: 9.0}),
            "torch:gem": times({FORWARD: 4.0, BOTH: 8.0}),
        },
    }
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"cells": [cell]}))
    assert targets.main([str(file)]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split(" | ")[2:4] == [f"small, {FORWARD}", f"small, {BOTH}"]
    assert header.split(" | ")[4:] == [f"long 32x2048x512, {FORWARD}", f"long 32x2048x512, {BOTH} |"]
    missing = [f"not measured (at most {limit})" for limit in ("2", "0.8")]
    measured = ["**3.00** (at most 1.5)", "0.70 (at most 0.75)"]
    assert f"| `{rows.OURS}` | `jax:attention` | {' | '.join([*missing, *measured])} |" in lines
    (gem,) = (line for line in lines if "| `torch:gem` |" in line)
    assert gem.endswith("| 0.50 (at most 1) | **1.12** (at most 1) |")


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (pool.main, ["--rows", "xla:liner"], "unknown row 'xla:liner': did you mean 'xla:linear'?"),
        (pool.main, ["--shapes", "huge"], "unknown shape 'huge': choose one of sentence, document, "),
        (pool.main, ["--fills", "half"], "unknown fill 'half': choose one of dense, ragged"),
        (pool.main, ["--rounds", "0"], "--rounds must be 1 or more, got 0"),
        (pool.main, ["--rounds", "many"], "argument --rounds: invalid int value: 'many'"),
        (pool.main, ["--out", "nowhere/result.json"], "the folder of nowhere/result.json does not exist"),
        (pool.main, ["--what"], "unrecognized arguments: --what"),
        (page.main, ["nowhere.json"], "cannot read nowhere.json: No such file or directory"),
        (device.main, ["--shapes", "huge"], "unknown shape 'huge'"),
        (device.main, ["--out", "nowhere/page.md"], "the folder of nowhere/page.md does not exist"),
        (targets.main, [], "the following arguments are required: FILE.json"),
        (targets.main, [__file__], "test_benchmarks.py holds no measurement"),
    ],
)
def test_a_mistake_is_one_line(main, arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("benchmarks.")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("main", [pool.main, page.main, targets.main], ids=["pool", "page", "targets"])
def test_help_explains_every_option(main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "FILE.json" in capsys.readouterr().out


def by_formula(arrays):
    """The op in float64: [sum_i (a_i h_i)^p / sum_i a_i^p]^(1/p)."""
    h, z = arrays.states["linear"].astype(np.float64), arrays.scores["scalar"].astype(np.float64)
    weights = np.exp(shapes.P * z) * (1 if arrays.mask is None else arrays.mask)
    powers = np.einsum("bt,btd->bd", weights, h**shapes.P) / weights.sum(1)[:, None]
    return powers ** (1 / shapes.P)


NAMES = (
    "jax:naive",
    "jax:logsumexp",
    "torch:logsumexp",
    "torch:gem",
    "xla:linear",
    "xla:tanh",
    "xla:bf16",
    "xla:packed",
)
THE_OP = [
    row for row in rows.jax_rows() + torch_rows.torch_rows() if row.name in NAMES or row.name.endswith(":log-bound")
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("fill", shapes.FILLS)
@pytest.mark.parametrize("row", THE_OP, ids=lambda row: row.name)
def test_rows_of_the_op_compute_it(row, fill):
    arrays = shapes.draw(shapes.SHAPES["tiny"], fill)
    if row.name.startswith("torch:"):
        function, inputs = torch_rows.tensors(row, arrays)
        pooled = function(*inputs).detach().numpy()
    else:
        function, inputs = rows.prepare(row, arrays)
        pooled = np.asarray(jax.jit(function)(*inputs), np.float64)
    np.testing.assert_allclose(pooled, by_formula(arrays), rtol=2e-2 if row.states == "bf16" else 1e-5)


@pytest.mark.skipif(torch_rows.torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("fill", shapes.FILLS)
def test_the_packed_power_mean_leaves_padding_out(fill):
    arrays = shapes.draw(shapes.SHAPES["tiny"], fill)
    (row,) = (row for row in torch_rows.torch_rows() if row.packed)
    pooled = build(row, arrays)[0].run().numpy()
    uniform = arrays._replace(scores={"scalar": np.zeros_like(arrays.scores["scalar"])})
    np.testing.assert_allclose(pooled, by_formula(uniform), rtol=1e-5)


def test_names_of_rows_are_unique():
    names = [row.name for row in rows.jax_rows() + torch_rows.torch_rows()]
    assert len(set(names)) == len(names)


def test_rounds_fit_into_the_time_given():
    def program(mode):
        return SimpleNamespace(run=lambda: mode, drop=lambda results: dropped.append(results))

    dropped = []
    clock = lambda run: (1.0, run())  # noqa: E731
    assert [len(times) for times in timing.measure([program(0), program(1)], clock, 3, 0)] == [3, 3]
    assert sorted(dropped) == [0] * 3 + [1] * 3
    assert len(timing.measure([program(0)], clock, None, 0)[0]) == 5
    assert len(timing.measure([program(0)], clock, None, 1e3)[0]) == 25


def test_device_time_is_that_of_the_streams():
    def plane(name, **lines):
        made = [
            SimpleNamespace(name=line, events=[SimpleNamespace(duration_ns=n) for n in ns])
            for line, ns in lines.items()
        ]
        return SimpleNamespace(name=name, lines=made)

    planes = [plane("/device:GPU:0", Stream13=[2e6, 1e6], **{"XLA Modules": [9e6]}), plane("/host:CPU", Stream=[5e6])]
    assert timing.device_milliseconds(planes) == 3.0
    assert timing.device_milliseconds([plane("/device:TPU:0", **{"XLA Modules": [4e6], "XLA Ops": [4e6]})]) == 4.0


def test_the_device_clock_reads_a_trace(monkeypatch):
    def run():
        return jax.block_until_ready(jax.numpy.ones(3) + 1)

    with pytest.raises(UsageError, match="holds no time of a device"):  # a CPU has no plane of a device
        timing.device_clock(run)
    monkeypatch.setattr(timing, "device_milliseconds", lambda planes: float(bool(planes)))
    milliseconds, results = timing.device_clock(run)
    assert (milliseconds, results.tolist()) == (1.0, [2, 2, 2])


def test_a_document_over_eight_devices_is_that_of_one(capsys):
    assert million.main(["--tokens", "800", "--features", "4"]) == 0
    differences = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "difference" in line]
    assert len(differences) == 4
    assert max(differences) < 1e-4
    assert million.main(["--tokens", "801"]) == 2
    assert "multiple of 8" in capsys.readouterr().err


@pytest.mark.slow
def test_the_share_of_a_step_is_of_real_steps(capsys):
    line = "--encoders bag --poolers max --batch-size 8 --max-len 8 --rounds 2 --seeds 2"
    assert steps.main(line.split()) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    assert header == "| encoder, 8 x 8 words | mean, ms a step | max | 2 seeds at once |"
    assert re.fullmatch(r"\| bag \| [\d.]+ \| -?\d+% \| \d+\.\d\d \|", row)
    assert steps.share({"mean": np.array([1.0, 3.0, 2.0]), "max": np.array([2.0, 4.0, 8.0])}, "max") == 0.5
    assert steps.main(["--rounds", "0"]) == 2
    assert "must be 1 or more" in capsys.readouterr().err
    assert steps.main(["--poolers", "maxx"]) == 2
    assert "unknown pooler 'maxx': did you mean 'max'?" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_at_once_take_the_steps_that_they_take_in_turn():
    config = default_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=8, max_len=8, buckets=1))
    in_turn, at_once = steps.in_turn_and_at_once("bag", "learned_norm", build_task(config), config, 2)
    losses = [report.loss for _, report in in_turn.run()]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(at_once.run()[1].loss, losses, rtol=1e-5)
