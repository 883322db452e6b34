"""The table of runs, and the linear baseline on a small task."""

import json

import pytest

from experiments import baseline, report
from experiments.baselines import linear
from experiments.run.config import parse_args, to_json


def run_folder(path, accuracy, line="", p=2.0):
    config = parse_args(line.split())
    path.mkdir()
    (path / "config.json").write_text(to_json(config))
    summary = {
        "task": config.task,
        "encoder": config.encoder,
        "pooler": config.pooler,
        "seed": config.seed,
        "test": {"accuracy": accuracy, "macro_f1": accuracy - 0.1},
        "p": p,
        "parameters": 1234,
        "seconds": {"total": 60.0},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    return str(path)


def test_runs_that_differ_in_the_seed_make_one_row(tmp_path, capsys):
    folders = [
        run_folder(tmp_path / "a", 0.5, "--seed 0", p=[1.0, 2.0]),
        run_folder(tmp_path / "b", 0.7, "--seed 1", p=[2.0, 3.0]),
        run_folder(tmp_path / "c", 0.9, "--pooler mean --epochs 3", p=None),
    ]
    assert report.main(folders) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| wordnet | bigru | mean | epochs=3 | 1 | 0.9000 | 0.8000 |  | 1234 | 60 |",
        "| wordnet | bigru | log_learned_norm |  | 2 | 0.6000 ± 1.2706 | 0.5000 ± 1.2706 | 2.00 ± 6.35 | 1234 "
        "| 60 ± 0 |",
    ]


def answer(run, table, texts=10):
    (run / "analyses").mkdir()
    found = {"options": {"texts": texts}, "table": table, "summary": {}, "examples": []}
    (run / "analyses" / "gradient-test.json").write_text(json.dumps(found))


def test_answers_of_seeds_are_one_table(tmp_path, capsys):
    folders = [run_folder(tmp_path / name, 0.5, f"--seed {seed}") for seed, name in enumerate("abc")]
    for name, tau in (("a", 0.25), ("b", 0.75)):  # the third was not asked
        lines = [{"of": "attention", "texts": 9, "tau": tau}, {"of": "share", "texts": 9, "tau": None}]
        answer(tmp_path / name, lines)
    assert report.main([*folders, "--analysis", "gradient-test"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| task | encoder | pooler | options | runs | of | texts | tau |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| wordnet | bigru | log_learned_norm |  | 2 | attention | 9 | 0.500 ± 3.177 |",  # t(1 df) = 12.706, s = .3536
        "| wordnet | bigru | log_learned_norm |  | 2 | share | 9 |  |",
    ]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("--analysis permutation-test", 2, "there are: gradient-test"),
        ("--analysis gradient-test --pivot", 2, "leave out --page, --pivot and --text"),
        ("b --analysis gradient-test", 2, "of seeds are of different numbers of texts (--texts 10, 20)"),
        ("c --analysis gradient-test", 65, "gradient-test.json is not the answer to an analysis"),
    ],
)
def test_answers_that_are_no_table(line, code, message, tmp_path, monkeypatch, one_line):
    for seed, name in enumerate("abc"):
        run_folder(tmp_path / name, 0.5, f"--seed {seed}")
    answer(tmp_path / "a", [])
    answer(tmp_path / "b", [], texts=20)
    answer(tmp_path / "c", "a table")
    monkeypatch.chdir(tmp_path)
    one_line(report.main, ["a", *line.split()], code, message)


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--what"], 2), (["."], 65)])
def test_a_table_needs_finished_runs(arguments, code, capsys):
    assert report.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("experiments.report: ")
    assert captured.err.count("\n") == 1


def test_the_baseline_learns_and_its_folder_enters_the_table(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    assert baseline.main(["--task", "toy", "--out", str(tmp_path / "linear")]) == 0
    summary = json.loads((tmp_path / "linear" / "summary.json").read_text())
    assert summary["test"]["accuracy"] > 0.9
    assert capsys.readouterr().out.startswith(f"test accuracy {summary['test']['accuracy']:.4f}, macro-F1 ")
    assert report.main([str(tmp_path / "linear")]) == 0
    assert "| toy | tf-idf | linear |  | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize("objective", ["classify", "multilabel", "regress"])
def test_the_linear_baselines_ask_for_scikit_learn(objective, monkeypatch, capsys):
    monkeypatch.setattr(linear, "TfidfVectorizer", None)
    assert baseline.main(["--objective", objective]) == 2
    assert capsys.readouterr().err == (
        'experiments.baseline: the linear baseline needs scikit-learn: python -m pip install -e ".[baselines]"\n'
    )
