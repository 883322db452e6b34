"""Reports are a function of the run folders: statistics by hand, the same bytes twice, n after a seed is gone."""

import csv
import dataclasses
import doctest
import io
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import report, train
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS, LearnedNorm
from experiments.reporting import (
    attended,
    figures,
    labels,
    max_or_mean,
    measures,
    needles,
    records,
    sentences,
    statistics,
    tables,
)
from experiments.reporting.statistics import Estimate, estimate, holm, paired
from experiments.run import plot
from experiments.run.config import default_objective, parse_args, to_json
from experiments.sweeping import grid
from experiments.tasks import TASKS
from tests.harness.conftest import TINY


def run_folder(
    path: Path, line: str, accuracy: float, *, p=None, entropy=None, loss=1.0, fit=None, validated=None
) -> Path:
    config = parse_args(line.split())
    # The loss of the middle validation is the lowest one; that of the last, which is tested, is in the opposite order.
    records_ = [
        {
            "step": step,
            "epoch": float(step),
            "train_loss": fit,
            "loss": [999, loss, 999 - loss][step],
            "accuracy": accuracy if validated is None else validated,
        }
        | ({"p": p} if p is not None else {})
        | ({"attention_entropy": entropy - step / 10} if entropy is not None else {})
        for step in range(3)
    ]
    path.mkdir(parents=True)
    (path / "config.json").write_text(to_json(config))
    (path / "environment.json").write_text(
        json.dumps({"jax": "0.0", "device": "1 x cpu", "cpu_count": 1, "system": "X"})
    )
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records_))
    summary = {
        "task": config.task,
        "encoder": config.encoder,
        "pooler": config.pooler,
        "seed": config.seed,
        "test": {"accuracy": accuracy, "macro_f1": accuracy},
        "validation": records_[-1],
        "p": p,
        "parameters": 10,
        "seconds": {"total": 2.0},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    return path


ACCURACIES = {
    "attention": [0.80, 0.82, 0.81, 0.79, 0.83],
    "learned_norm": [0.82, 0.83, 0.83, 0.82, 0.84],
    "mean": [0.70, 0.80, 0.75, 0.72, 0.78],
}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    """Three poolings on two tasks with two encoders, five seeds."""
    out = tmp_path_factory.mktemp("made") / "grid"
    for task in ("trec", "subj"):
        for encoder in ("bag", "cnn"):
            for pooler, values in ACCURACIES.items():
                for seed, value in enumerate(values):
                    line = f"--task {task} --encoder {encoder} --pooler {pooler} --seed {seed} --epochs 2"
                    p = [1.5 + seed / 10, 2.0] if pooler == "learned_norm" else None
                    run_folder(out / f"{task}-{encoder}-{pooler}-{seed}", line, value, p=p, entropy=2.0)
    return out


@pytest.fixture
def sweep_folder(made_once, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(made_once, tmp_path / "grid")


def needle_folders(out: Path) -> Path:
    for k in (1, 4):
        for p in (1.0, 2.0, 8.0):
            line = f"--task needles --pooler learned_norm --data.signals {k} --pool.exponent fixed --pool.p-init {p}"
            run_folder(out / f"fixed-{k}-{p}", line, 0.9 - abs(p - 8 / k) / 100, p=p, loss=(p - 2) ** 2, fit=p)
        for seed, p in enumerate((2.1, 2.3)):
            line = f"--task needles --pooler learned_norm --data.signals {k} --seed {seed}"
            run_folder(out / f"learned-{k}-{seed}", line, 0.6, p=p)
            run_folder(out / f"taught-{k}-{seed}", f"{line} --optim.held-out 0.1", 0.6, p=2 * p)
    return out


WAYS = {"all texts, 10 times": 2.2, "the 10% held out, 10 times": 4.4}


@pytest.mark.parametrize("module", [grid, labels, records, statistics], ids=lambda module: module.__name__)
def test_docstring_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert failed == 0


def test_an_interval_by_hand():
    """Values 1, 2, 3: s = 1, t(2) = 4.302653, half = t / sqrt(3)."""
    assert estimate([1.0, 2.0, 3.0]) == (2.0, pytest.approx(4.302653 / 3**0.5, rel=1e-6), 3)
    assert estimate([0.5]) == Estimate(0.5, None, 1)


def test_a_paired_test_by_hand():
    """Differences 2, 1, 2, 3, 1 (seed 5 has no partner): mean 1.8, s = 0.83666, t = 4.8107, p = 0.00858 with 4 df."""
    ours = {0: 0.82, 1: 0.83, 2: 0.83, 3: 0.82, 4: 0.84, 5: 0.99}
    theirs = dict(enumerate(ACCURACIES["attention"]))
    found = paired(ours, theirs)
    assert found is not None
    assert found.difference == (pytest.approx(0.018), pytest.approx(2.776445 * 0.0083666 / 5**0.5, rel=1e-4), 5)
    assert found.p_value == pytest.approx(0.00858, rel=1e-3)
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert paired({0: 0.6, 1: 0.7}, {0: 0.5, 1: 0.6}).p_value is None, "the same difference twice is no test"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_two_one_sided_tests_by_hand():
    """Differences .001, .002, .003: the standard error is .001 / sqrt 3, and with 2 df P(T < t) has a closed form."""

    def below(t):
        return 0.5 + t / (2 * (2 + t**2) ** 0.5)

    ours, theirs = {0: 0.501, 1: 0.602, 2: 0.703}, {0: 0.5, 1: 0.6, 2: 0.7}
    error = 0.001 / 3**0.5
    for margin, nearer in ((0.005, 0.003), (0.002, 0.0), (0.001, -0.001)):
        found = paired(ours, theirs, margin)
        assert found.equivalence == pytest.approx(1 - below(nearer / error))
        mirrored = paired(theirs, ours, margin)
        assert mirrored.equivalence == pytest.approx(found.equivalence), "the margin reaches as far to both sides"
    assert paired(ours, theirs).equivalence is None
    assert paired({0: 0.6, 1: 0.7}, {0: 0.5, 1: 0.6}, 0.005).equivalence is None, "no spread, no test"


def spread(n, deviation):
    """An estimate of n values with this standard deviation: half is t times its standard error."""
    return Estimate(0.0, float(scipy.stats.t.isf(0.025, n - 1)) * deviation / n**0.5, n)


def test_the_difference_that_would_be_found():
    """G*Power 3, one-sample t-test, two tails: 34 differences of mean 0.5 s are found with power 0.807778."""
    assert statistics.detectable(spread(34, 1.0), power=0.807778) == pytest.approx(0.5, abs=1e-5)
    assert statistics.detectable(spread(34, 0.02), power=0.807778) == pytest.approx(0.01, abs=1e-6)
    rng = np.random.default_rng(0)
    for n, level in ((2, 0.05), (5, 0.05), (3, 0.05 / 60), (5, 0.05 / 60)):
        size = statistics.detectable(spread(n, 1.0), level)
        draws = rng.normal(size, 1.0, (20000, n))
        tests = scipy.stats.ttest_1samp(draws, 0, axis=1)
        found = (tests.pvalue < level) & (tests.statistic > 0)
        assert found.mean() == pytest.approx(0.8, abs=0.01), "a standard error of the simulation is 0.003"


def test_the_learned_norms_are_those_of_the_table_of_poolers():
    assert {name for name, pooler in POOLERS.items() if issubclass(pooler, LearnedNorm)} == set(records.LEARNED_NORMS)


DEVIATIONS = np.array([-0.01, -0.005, 0.0, 0.005, 0.01])
"""With a mean of 0 and a standard deviation of 0.0079057."""


def test_places_that_differ_that_are_equivalent_and_that_are_neither(tmp_path):
    """Differences of both learned norms: small ones on trec, large ones on subj, noise on sst2.

    The tests of log_learned_norm on trec are not possible, because its differences do not vary.
    """
    differences = {"trec": DEVIATIONS / 50, "subj": 0.05 + DEVIATIONS / 50, "sst2": DEVIATIONS}
    for task, own in differences.items():
        for seed, difference in enumerate(own):
            line = f"--task {task} --encoder cnn --seed {seed}"
            run_folder(tmp_path / "runs" / f"{task}-attention-{seed}", f"{line} --pooler attention", 0.8)
            for pooler in records.LEARNED_NORMS:
                same = pooler == "log_learned_norm" and task == "trec"
                score = 0.8 if same else 0.8 + difference
                run_folder(tmp_path / "runs" / f"{task}-{pooler}-{seed}", f"{line} --pooler {pooler}", score, p=2.0)
    rows = records.rows(records.collect([tmp_path / "runs"]))
    found = statistics.comparisons(rows)
    assert {(key.pooler, key.task) for key, c in found.items() if c.differs} == {
        (pooler, "subj") for pooler in records.LEARNED_NORMS
    }
    assert [(key.pooler, key.task) for key, c in found.items() if c.is_equivalent] == [("learned_norm", "trec")]
    assert {comparison.strictest for comparison in found.values()} == {0.05 / 5}
    table = tables.against_attention(statistics.overall(found), rows)
    assert table.header[4:7] == ("mean difference", "differ", "equivalent")
    mean, half, n = estimate([0.0, 0.05, 0.0])
    for pooler, differ, equivalent in (("learned_norm", 1, 1), ("log_learned_norm", 1, 0)):
        (line,) = (row for row in table.rows if row[0] == pooler)
        assert line[4] == (pytest.approx(mean), pytest.approx(half), n)
        assert line[5:7] == (differ, equivalent)
    ours, logs = sentences.in_words(found, measures.measure_of("classify")).split("\n\n")
    assert (
        "Two one-sided tests (p < 0.05 after Holm's correction) show that the difference lies within half a point in 1 "
        "of 3 places (trec with cnn); in 1 it is neither shown to differ from zero nor to be equivalent. The interval "
        "of the mean difference over the places does not lie within half a point."
    ) in ours
    assert ours.startswith("`learned_norm`: ")
    assert logs.startswith("`log_learned_norm`: ")
    assert "within half a point in 0 of 3 places; in 2 it is neither" in logs
    # With five runs a difference of 1.6820 standard deviations has a power of 0.8, as simulated above.
    assert f"with power 0.8 is {1.682 * 0.79057 / 50:.2f} points at p < 0.05, and " in ours
    assert f"with power 0.8 is {1.682 * 0.79057 * 51 / 100:.2f} points at p < 0.05, and " in logs


def test_every_comparison_is_with_attention_at_the_same_place(sweep_folder):
    rows = records.rows(records.collect([sweep_folder]))
    found = statistics.comparisons(rows)
    assert len(found) == 8
    assert {key.pooler for key in found} == {"learned_norm", "mean"}
    for key, comparison in found.items():
        expected = np.mean(ACCURACIES[key.pooler]) - np.mean(ACCURACIES["attention"])
        assert comparison.difference.mean == pytest.approx(expected)
        assert comparison.corrected >= comparison.p_value
    smallest = min(comparison.p_value for comparison in found.values())
    assert min(comparison.corrected for comparison in found.values()) == pytest.approx(min(8 * smallest, 1))
    first, second = statistics.overall(found)
    assert (first.method, second.method) == ("learned_norm", "mean")
    assert first.p_value == pytest.approx(2 / 2**4), "four differences above zero: 2 of the 16 patterns of sign"


def test_settings_are_chosen_on_validation(tmp_path):
    """How an exponent learns is an option of the pooler; a place where a pooler has no run does not count."""
    attention, learned = "--pooler attention", "--pooler learned_norm --optim.p-multiplier 50"
    validated = {("trec", attention): 0.8, ("trec", learned): 0.7, ("subj", attention): 0.6, ("subj", learned): 0.9}
    for index, ((task, pooler), value) in enumerate([*validated.items(), (("mr", attention), 0.99)]):
        line = f"--task {task} --encoder cnn {pooler}"
        run_folder(tmp_path / f"{index}", line, accuracy=1 - value, validated=value)
    rows = records.rows(records.collect([tmp_path]))
    table = tables.preferred(rows)
    assert table.header == ("pooler", "places", "validation accuracy", "rank")
    assert table.rows == (
        ("learned_norm (optim.p_multiplier=50.0)", 2, pytest.approx(0.8), 1.5),
        ("attention", 2, pytest.approx(0.7), 1.5),
    )
    assert {key.method for key in statistics.comparisons(rows)} == {"learned_norm (optim.p_multiplier=50.0)"}
    assert not tables.preferred(rows[:1]).rows, "with one pooler there is no choice"
    assert not tables.preferred([dataclasses.replace(row, finished=()) for row in rows]).rows


def test_a_long_name_is_broken_into_lines(tmp_path):
    line = "--task trec --encoder cnn --pooler learned_norm --pool.per head --pool.heads 4 --pool.no-sharpen"
    run_folder(tmp_path / "0", f"{line} --pool.scale-limit exp --pool.exponent positive", 0.5, p=2.0)
    run_folder(tmp_path / "1", "--task trec --encoder cnn --pooler attention", 0.5)
    (axis,) = drawn([tmp_path])["scores"].axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert max(map(len, "\n".join(names).splitlines())) <= figures.LONGEST_LABEL
    assert "learned norm, p above 0, exp limit, p per head, 4 heads, plain attention" in [
        " ".join(name.split()) for name in names
    ]


def test_the_pivot_says_n_where_a_seed_is_missing(sweep_folder, capsys):
    assert report.main([str(sweep_folder), "--pivot"]) == 0
    before = capsys.readouterr().out
    assert "| pooler | subj | trec |" in before
    assert "n = " not in before
    assert "| learned_norm | **82.8 ± 1.0** | **82.8 ± 1.0** |" in before
    shutil.rmtree(sweep_folder / "trec-cnn-mean-2")
    assert report.main([str(sweep_folder), "--pivot"]) == 0
    after = capsys.readouterr().out
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed == ["| mean | 75.0 ± 5.1 | 75.0 ± 7.6 (n = 4) |"]
    assert report.main([str(sweep_folder)]) == 0
    assert "| trec | cnn | mean | epochs=2 | 4 | 0.7500 ± 0.0758 |" in capsys.readouterr().out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_page_is_a_function_of_the_folders(sweep_folder, tmp_path):
    """Twice the same bytes, also from folders read in another order and at another place."""
    needle = needle_folders(tmp_path / "needles")
    (tmp_path / "one").mkdir()
    assert report.main([str(sweep_folder), str(needle), "--page", str(tmp_path / "one" / "page.md")]) == 0
    (tmp_path / "moved").mkdir()
    shutil.copytree(needle, tmp_path / "moved" / "needles")
    for path in sorted(sweep_folder.iterdir(), reverse=True):
        shutil.copytree(path, tmp_path / "moved" / "grid" / f"other-{path.name[::-1]}")
    (tmp_path / "two").mkdir()
    moved = [str(tmp_path / "moved" / name) for name in ("grid", "needles")]
    assert report.main([*moved, "--page", str(tmp_path / "two" / "page.md")]) == 0
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one == two
    pictures = {"grid-accuracy", "grid-exponent", "grid-hardness", "needles-needles", "needles-fixed"}
    for name in pictures:
        assert one[f"page/{name}.png"].startswith(b"\x89PNG")
        assert one[f"page/{name}.pdf"].startswith(b"%PDF")
    text = one["page.md"].decode()
    assert "`learned_norm`: mean accuracy above attention pooling in 4 of 4 places." in text
    assert "python -m experiments.train --task trec --encoder cnn --pooler mean --seed SEED --epochs 2" in text
    assert "60 finished runs of 12 configurations" in text
    assert "| bag | learned_norm | 1.85 ± 0.10 | 1.85 ± 0.10 |" in text, "seeds of mean p 1.75, 1.8, ... 1.95"
    assert (
        "from all texts, 10 times as fast as the rest, p is within 25 % of the best fixed p for 1 by accuracy (4), for"
        in text
    )
    assert "a smaller fixed exponent than the validation loss for 2 of 2 values of k (1, 4)." in text
    assert str(tmp_path) not in text


def test_folds_count_as_runs(tmp_path):
    for fold, accuracy in enumerate((0.7, 0.8, 0.9)):
        run_folder(tmp_path / "folds" / f"{fold}", f"--task mr --pooler mean --fold {fold}", accuracy)
    assert report.main([str(tmp_path / "folds"), "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "3 finished runs of 1 configurations" in text
    assert "| mr | bigru | mean |  | 3 | 0.8000 ± 0.2484 |" in text, "4.303 standard errors, of 0.1 / sqrt 3"
    assert "--pooler mean --seed SEED --data.fold FOLD  # SEED: 0; FOLD: 0 1 2; 2 s each" in text


def test_needles_compare_the_learned_with_the_best_fixed_exponent(tmp_path):
    every = needles.best_and_learned(records.rows(records.collect([needle_folders(tmp_path / "needles")])))
    assert [(line.signals, line.way, line.learned.mean) for line in every] == [
        (k, way, pytest.approx(p)) for k in (1, 4) for way, p in WAYS.items()
    ]
    lines = [line for line in every if line.way == "all texts, 10 times"]
    assert [(line.signals, line.best, line.lowest) for line in lines] == [(1, 8.0, 2.0), (4, 2.0, 2.0)]
    assert [(line.is_close(line.best), line.is_close(line.lowest)) for line in lines] == [(False, True), (True, True)]
    assert lines[0].learned.mean == pytest.approx(2.2)
    assert [(line.fitted, line.final.mean) for line in lines] == [(1.0, pytest.approx(2.2))] * 2


def test_each_learned_norm_has_its_own_best_exponent(tmp_path):
    """Best fixed exponents of the logarithmic form are twice those of the other."""
    needle_folders(tmp_path / "needles")
    for k in (1, 4):
        for p in (1.0, 2.0, 4.0, 16.0):
            line = (
                f"--task needles --pooler log_learned_norm --data.signals {k} --pool.exponent fixed --pool.p-init {p}"
            )
            run_folder(tmp_path / "needles" / f"log-{k}-{p}", line, 0.9 - abs(p - 16 / k) / 100, p=p, fit=p)
        line = f"--task needles --pooler log_learned_norm --data.signals {k}"
        run_folder(tmp_path / "needles" / f"log-{k}", line, 0.6, p=4.0)
    rows = records.rows(records.collect([tmp_path / "needles"]))
    lines = needles.best_and_learned(rows)
    assert {(line.pooler, line.signals): line.best for line in lines} == {
        ("learned_norm", 1): 8.0,
        ("learned_norm", 4): 2.0,
        ("log_learned_norm", 1): 16.0,
        ("log_learned_norm", 4): 4.0,
    }
    assert [axis.get_title() for axis in figures.needles(rows).axes] == ["learned norm", "log learned norm"]
    said = sentences.needles_in_words(lines, measures.measure_of("classify"))
    assert "`log_learned_norm`:\n\n- Learned from all texts, 10 times as fast as the rest, p is within 25 %" in said
    assert "best fixed p for 1 by accuracy (4), for 0 by loss of 2" in said.partition("`log_learned_norm`")[2]


GAINS = {"trec": 0.02, "subj": -0.01, "sst2": 0.04, "wordnet": 0.0}
"""What max is ahead of mean by: the ranks are 3, 1, 4, 2."""
LEARNED = {"learned_norm": (2.5, 2.0, 3.0, 4.0), "log_learned_norm": (1.0, 1.0, 1.0, 1.0)}
"""Learned exponents of these tasks: the ranks of the first are 2, 1, 3, 4, and those of the second are equal."""


def gain_folders(out: Path, encoders=("cnn",), seeds=(0, 1)) -> list[records.Row]:
    for index, (task, gain) in enumerate(GAINS.items()):
        for encoder in encoders:
            for seed in seeds:
                line = f"--task {task} --encoder {encoder} --seed {seed}"
                name = f"{task}-{encoder}-{seed}"
                run_folder(out / f"mean-{name}", f"{line} --pooler mean", 0.7 + seed / 10)
                run_folder(out / f"max-{name}", f"{line} --pooler max", 0.7 + seed / 10 + gain)
                for pooler, learned in LEARNED.items():
                    p = [learned[index] - 1, learned[index] + 1]
                    run_folder(out / f"{pooler}-{name}", f"{line} --pooler {pooler}", 0.7, p=p)
                fixed = f"{line} --pooler learned_norm --pool.exponent fixed"
                run_folder(out / f"fixed-{name}", fixed, 0.7, p=2.0)
    return records.rows(records.collect([out]))


def test_learned_exponents_against_what_max_is_ahead_of_mean_by(tmp_path):
    """Spearman's rho is 1 - 6 (1 + 0 + 1 + 4) / (4 * 15) = 0.4; constant exponents have none."""
    rows = gain_folders(tmp_path)
    _, _, draw = figures.figures(rows[0].key.measure)["max_or_mean"]
    (axis,) = draw(rows).axes
    marks = {line.get_label(): line.get_xydata() for line in axis.lines if line.get_marker() != "None"}
    assert set(marks) == {"learned norm: rho = 0.40, n = 4", "log learned norm: n = 4"}
    expected = sorted([100 * gain, p] for gain, p in zip(GAINS.values(), LEARNED["learned_norm"], strict=True))
    assert np.sort(marks["learned norm: rho = 0.40, n = 4"], axis=0)[:, 0] == pytest.approx([x for x, _ in expected])
    found = max_or_mean.points(rows)["learned norm"]
    assert sorted(found.values()) == [pytest.approx(point) for point in expected]
    assert [text.get_text() for text in axis.texts] == ["subj", "wordnet", "trec", "sst2"], "in the order of the gains"
    assert axis.get_yscale() == "log"
    less = [row for row in rows if row.key.task not in ("trec", "subj") or row.key.pooler != "max"]
    assert draw(less) is None, "two places are too few"


def test_labels_of_many_places_do_not_touch(tmp_path):
    """Places at the same point have labels beside each other."""
    figure = max_or_mean.draw(gain_folders(tmp_path, encoders=("bag", "cnn", "bigru"), seeds=(0,)))
    FigureCanvasAgg(figure).draw()
    (axis,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert len(boxes) == 12
    assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.width
    assert max(box.y1 for box in boxes) <= figure.bbox.height


def test_a_curve_of_fixed_exponents_is_of_one_pooler_with_one_set_of_options(tmp_path):
    for limit in ("tanh", "abs"):
        for p in (1.0, 2.0, 4.0):
            line = f"--encoder cnn --pooler learned_norm --pool.scale-limit {limit}"
            line += f" --pool.exponent fixed --pool.p-init {p}"
            run_folder(tmp_path / f"{limit}-{p}", line, 0.5 + p / 10 - 0.2 * (limit == "abs"), p=p)
    run_folder(tmp_path / "learned", "--encoder cnn --pooler learned_norm", 0.8, p=1.5)
    figure = figures.fixed_against_learned(records.rows(records.collect([tmp_path])))
    (axis,) = figure.axes
    curves = {curve.get_label(): curve.lines[0].get_xydata().round(9).tolist() for curve in axis.containers}
    assert curves == {
        "fixed p of learned norm": [[1, 60], [2, 70], [4, 90]],
        "fixed p of learned norm, abs limit": [[1, 40], [2, 50], [4, 70]],
    }
    (star,) = (line for line in axis.lines if line.get_marker() == "*")
    assert (star.get_label(), star.get_xydata().tolist()) == ("learned p of learned norm, a seed each", [[1.5, 80]])


def drawn(folders) -> dict[str, Figure]:
    rows = records.rows(records.collect(folders))
    made = {name: draw(rows) for name, (_, _, draw) in figures.figures(rows[0].key.measure).items()}
    return {name: figure for name, figure in made.items() if figure is not None}


def test_rows_are_called_by_names_that_are_their_own(tmp_path):
    """Poolers with the same options and other word vectors; the options that all rows share are not said."""
    lines = {
        "attention": "--pooler attention",
        "attention, vectors glove, embedding 100": "--pooler attention --encode.vectors glove",
        "learned norm": "--pooler learned_norm",
        "learned norm, p = 2": "--pooler learned_norm --pool.exponent fixed",
        "learned norm, p = 1.5": "--pooler learned_norm --pool.exponent fixed --pool.p-init 1.5",
        "learned norm, p per head, 4 heads": "--pooler learned_norm --pool.per head --pool.heads 4",
    }
    for index, line in enumerate(lines.values()):
        p = 2.0 if "norm" in line else None
        run_folder(tmp_path / f"{index}", f"--task trec --encoder cnn --epochs 2 {line}", 0.5, p=p, entropy=1.0)
    rows = records.rows(records.collect([tmp_path]))
    assert set(labels.names(rows).values()) == set(lines)
    made = drawn([tmp_path])
    (axis,) = made["scores"].axes
    assert sorted(label.get_text() for label in axis.get_yticklabels()) == sorted(lines)
    (axis,) = made["hardness"].axes
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle(), line.get_linewidth()) for line in axis.lines}
    assert len(looks) == len(axis.lines) == len(lines), "no two lines look alike"


def test_intervals_and_axes_of_rates_end_at_100_percent(tmp_path):
    for pooler, values in {"mean": (1.0, 0.9, 0.99), "max": (0.0, 0.1, 0.02)}.items():
        for seed, value in enumerate(values):
            run_folder(
                tmp_path / f"{pooler}-{seed}", f"--task trec --encoder cnn --pooler {pooler} --seed {seed}", value
            )
    (axis,) = drawn([tmp_path])["scores"].axes
    assert axis.get_xlim() == (0, 100)
    bars = [bar.get_segments()[0][:, 0] for container in axis.containers for bar in container.lines[2]]
    mean, half, _ = estimate([100.0, 90.0, 99.0])
    low, low_half, _ = estimate([0.0, 10.0, 2.0])
    assert low < low_half
    assert mean + half > 100
    assert [bar.tolist() for bar in bars] == [[0, pytest.approx(low + low_half)], [pytest.approx(mean - half), 100]]


def test_no_figure_is_larger_than_a_page(tmp_path):
    """All tasks of one class a text, with three poolings each."""
    poolers = ("attention", "learned_norm", "mean")
    tasks = [
        task for task in TASKS if task not in ("file", "toy", "needles") and default_objective(task, {}) == "classify"
    ]
    for task in tasks:
        for pooler in poolers:
            p = 2.0 if pooler == "learned_norm" else None
            run_folder(
                tmp_path / f"{task}-{pooler}", f"--task {task} --encoder cnn --pooler {pooler}", 0.5, p=p, entropy=1
            )
    made = drawn([tmp_path])
    assert set(made) == {"scores", "exponent", "hardness"}
    for figure in made.values():
        width, height = figure.get_size_inches()
        assert width <= 6.9
        assert height <= 9.0
        assert len(figure.axes) >= len(tasks) >= 16


@pytest.mark.slow
def test_a_long_text_over_many_runs_fits_on_a_page(tmp_path, monkeypatch):
    for pooler in ("attention", "learned_norm"):
        for size in range(32, 62):
            line = f"--task trec --encoder cnn --pooler {pooler} --encode.features {size}"
            run_folder(tmp_path / f"{pooler}-{size}", line, 0.5)
    rows = records.rows(records.collect([tmp_path]))
    monkeypatch.setattr(attended, "weights", lambda run, text: np.full(80, 1 / 80))
    figure = attended.draw("oak " * 80, rows)
    assert figure.get_size_inches().tolist() == [6.9, 9.0]
    called = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(called)) == len(called) == len(rows) == 60


def test_the_plot_of_a_run_says_what_was_trained(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.append(figure))
    validated = [
        {"epoch": n, "train_loss": 1.0, "loss": 1.0, "accuracy": n / 2, "macro_f1": 1.0, "p": [2, 3]} for n in range(3)
    ]
    facts = {"task": "trec", "encoder": "cnn", "pooler": "learned_norm", "seed": 7, "p": [2.0, 3.0]}
    facts["test"] = {"accuracy": 0.5, "macro_f1": 0.25}
    plot.plot(tmp_path / "training.png", validated, facts, OBJECTIVES["classify"])
    (figure,) = drawn
    assert figure.get_suptitle().splitlines() == [
        "trec, cnn, learned_norm, seed 7",
        "test accuracy 0.5000, macro-F1 0.2500 with p = 2.500 on average",
    ]
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy (%)", "macro-F1 (%)", "exponent p"]
    assert figure.axes[1].get_ylim() == (0, 100)
    assert figure.axes[1].lines[0].get_ydata().tolist() == [0, 50, 100]
    assert len(figure.axes[3].lines) == 2


def test_formats_hold_the_same_numbers(sweep_folder, capsys):
    assert report.main([str(sweep_folder), "--format", "csv"]) == 0
    lines = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert len(lines) == 12
    (line,) = (x for x in lines if (x["task"], x["encoder"], x["pooler"]) == ("trec", "cnn", "mean"))
    mean, half, n = estimate(ACCURACIES["mean"])
    numbers = [float(line[f"test accuracy {name}"]) for name in ("mean", "low", "high", "n")]
    assert numbers == pytest.approx([mean, mean - half, mean + half, n])
    assert report.main([str(sweep_folder), "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert rf"{mean:.4f} $\pm$ {half:.4f} & " in text
    assert r"learned\_norm" in text
    assert text.count(r"\\") == 13


def against_baseline(folders):
    rows = records.rows(records.collect(folders))
    return tables.against_baseline(rows, [row for row in rows if row.is_baseline])


def test_the_linear_baseline_meets_the_row_that_validation_prefers(sweep_folder, tmp_path):
    linear = tmp_path / "linear"
    linear.mkdir()
    facts = {"task": "trec", "encoder": "tf-idf", "pooler": "linear", "seed": 0, "p": None, "parameters": 3}
    facts |= {"test": {"accuracy": 0.9, "macro_f1": 0.9}, "validation": {"accuracy": 0.5}, "seconds": {"total": 1.0}}
    (linear / "summary.json").write_text(json.dumps(facts))
    (row,) = against_baseline([sweep_folder, linear]).rows
    assert row[:4] == ("trec", 0.9, "bag", "learned_norm")
    assert row[-1] == pytest.approx(0.828 - 0.9)


def test_the_linear_baseline_is_compared_on_the_same_folds(tmp_path):
    for fold, value in enumerate((0.6, 0.7, 0.8)):
        line = f"--task mr --encoder bag --pooler mean --data.fold {fold}"
        run_folder(tmp_path / f"mr-{fold}", line, value)
        run_folder(tmp_path / f"easier-{fold}", f"{line} --data.no-grouped", value + 0.1)
    for fold in (0, 2):
        (tmp_path / f"linear-{fold}").mkdir()
        facts = {"task": "mr", "encoder": "tf-idf", "pooler": "linear", "seed": 0, "fold": fold, "p": None}
        facts |= {"test": {"accuracy": 0.75 + fold / 20, "macro_f1": 0.9}, "seconds": {"total": 1.0}, "parameters": 3}
        (tmp_path / f"linear-{fold}" / "summary.json").write_text(json.dumps(facts))
    (row,) = against_baseline([tmp_path]).rows
    assert row[1] == pytest.approx(0.8)
    assert row[4].mean == pytest.approx(0.7)
    assert row[5] == pytest.approx(-0.1)


ERRORS = {"attention": [5.0, 5.2, 5.1], "learned_norm": [4.0, 4.1, 4.05], "mean": [5.5, 5.8, 5.6]}


@pytest.fixture
def errors_folder(tmp_path) -> Path:
    """Runs whose smallest value is the best, and which are no shares."""
    for pooler, values in ERRORS.items():
        for seed, value in enumerate(values):
            line = f"--task imdb_score --encoder cnn --pooler {pooler} --seed {seed}"
            p = 2.0 if pooler == "learned_norm" else None
            folder = run_folder(tmp_path / "scores" / f"{pooler}-{seed}", line, 0.0, p=p)
            summary = json.loads((folder / "summary.json").read_text())
            summary |= {"objective": "regress", "test": {"mse": value, "spearman": -0.5}, "validation": {"mse": value}}
            (folder / "summary.json").write_text(json.dumps(summary))
            validated_by(folder, mse=value, spearman=0.5)
    return tmp_path / "scores"


def validated_by(folder, **metrics):
    """Put metrics in the place of the accuracy of every validation."""
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines.replace('"accuracy": 0.0', json.dumps(metrics)[1:-1]))


def test_ahead_is_below_where_the_smallest_value_is_the_best(errors_folder, tmp_path, capsys):
    assert report.main([str(errors_folder)]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2] for line in lines] == ["learned_norm", "attention", "mean"]
    assert "| 4.0500 ± 0.1242 | -0.5000 ± 0.0000 | -1.0500 ± " in lines[0]
    assert report.main([str(errors_folder), "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "Test mean squared error, encoder `cnn`, n = 3" in text
    assert "| learned_norm | **4.050 ± 0.124** *" in text
    assert "| pooler | places | below | above | mean difference |" in text
    assert "`learned_norm`: mean squared error below attention pooling in 1 of 1 places. After " in text
    assert "difference is below zero in 1 (imdb_score with cnn) and above zero in 0." in text
    assert (tmp_path / "page" / "scores-mse.png").exists()
    assert not (tmp_path / "page" / "scores-accuracy.png").exists()


def test_a_baseline_with_a_larger_error_is_behind(errors_folder, tmp_path):
    linear = tmp_path / "linear"
    linear.mkdir()
    facts = {"task": "imdb_score", "objective": "regress", "encoder": "tf-idf", "pooler": "linear", "seed": 0}
    facts |= {"p": None, "parameters": 3, "test": {"mse": 4.5, "spearman": 0.7}, "seconds": {"total": 1.0}}
    (linear / "summary.json").write_text(json.dumps(facts))
    table = against_baseline([errors_folder, linear])
    (row,) = table.rows
    assert row[:4] == ("imdb_score", 4.5, "cnn", "learned_norm"), "validation prefers the smallest error"
    words = sentences.baseline_in_words(table, measures.measure_of("regress"))
    assert words == "The neural row is ahead of the linear baseline on 1 of 1 tasks (imdb_score)."
    assert records.read(linear).command == "python -m experiments.baseline --task imdb_score"


def test_a_baseline_of_other_words_is_no_match(tmp_path):
    def facts(digest, **more):
        data = {"test": {"digest": digest}}
        scored = {"test": {"perplexity": 9.0}, "validation": {"perplexity": 9.0}, "seconds": {"total": 1.0}}
        return {"task": "trec", "objective": "language_model", "seed": 0, "p": None, "data": data} | scored | more

    folder = run_folder(tmp_path / "run", "--task trec --objective language_model --encoder lstm", 0.0)
    (folder / "summary.json").write_text(json.dumps(facts("one", encoder="lstm", pooler="none", parameters=3)))
    validated_by(folder, perplexity=9.0)
    for digest, rows in (("one", 1), ("two", 0)):
        place = tmp_path / digest
        place.mkdir()
        counted = facts(digest, encoder="kneser-ney", pooler="n-gram", parameters=3)
        (place / "summary.json").write_text(json.dumps(counted))
        assert len(against_baseline([folder, place]).rows) == rows
    assert records.read(place).command.endswith("--task trec --objective language_model")


def test_run_folders_from_before_the_objective_are_of_classification(tmp_path):
    folder = run_folder(tmp_path / "run", "--task trec", 0.5)
    config = json.loads((folder / "config.json").read_text())
    del config["objective"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "objective" not in json.loads((folder / "summary.json").read_text())
    run = records.read(folder)
    assert (run.key.objective, run.score) == ("classify", 0.5)


def fail(folder):
    """Turn a finished cell into one that broke down."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "summary.json").unlink()
    (folder / "failure.json").write_text(json.dumps({"error": "not finite", "exit_code": 3, "config": config}))


def test_a_failed_cell_is_counted(sweep_folder, capsys):
    fail(sweep_folder / "trec-cnn-mean-2")
    assert report.main([str(sweep_folder)]) == 0
    assert "| trec | cnn | mean | epochs=2 | 4 | 1 | 0.7500 ± 0.0758 |" in capsys.readouterr().out
    assert report.main([str(sweep_folder), "--pivot"]) == 0
    assert "75.0 ± 7.6 (1 failed, n = 4)" in capsys.readouterr().out


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_row_that_never_finished_has_its_command_and_no_numbers(sweep_folder, tmp_path):
    for folder in sweep_folder.glob("trec-cnn-mean-*"):
        fail(folder)
    page = tmp_path / "page.md"
    assert report.main([str(sweep_folder), "--page", str(page)]) == 0
    assert "--encoder cnn --pooler mean --seed SEED --epochs 2  # SEED: 0 1 2 3 4\n" in page.read_text()
    assert "none (5 failed, n = 0)" in page.read_text()


@pytest.mark.slow
def test_what_each_pooling_attends_to_is_drawn_from_the_run_folders(tmp_path):
    line = [*TINY, "--epochs", "1", "--data.buckets", "1", "--pooler", "attention"]
    assert train.main([*line, "--out", str(tmp_path / "runs" / "toy")]) == 0
    page = tmp_path / "page.md"
    assert report.main([str(tmp_path / "runs"), "--page", str(page), "--text", "toy: a small cat"]) == 0
    assert '## Attention over a text: "a small cat"' in page.read_text()
    assert (tmp_path / "page" / "text-0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{grid}", "--text", "no colon", "--page", "{tmp}/p.md"], 2, "must be TASK: TEXT"),
        (["{grid}", "--text", "imdb: good", "--page", "{tmp}/p.md"], 2, "no run of the task 'imdb'"),
        (["{grid}", "--page", "{tmp}/page.txt"], 2, "must end in .md"),
        (["{grid}", "{grid}/trec-cnn-mean-2"], 65, "are the same run"),
        (["{tmp}/nothing"], 65, "is not a folder"),
        (["{broken}"], 65, "is not the summary of a run"),
        (["{nojson}"], 65, "is not JSON"),
        (["{stranger}"], 65, "unknown pooler"),
    ],
)
def test_bad_folders_are_one_line(arguments, code, message, sweep_folder, tmp_path, capsys):
    places = {"grid": sweep_folder, "tmp": tmp_path}
    for name, content in (("broken", '{"task": "trec"}'), ("nojson", "{"), ("stranger", None)):
        places[name] = run_folder(tmp_path / name, "--task trec", 0.5)
        if content:
            (places[name] / "summary.json").write_text(content)
    config = places["stranger"] / "config.json"
    config.write_text(config.read_text().replace("learned_norm", "lerned_norm"))
    assert report.main([argument.format(**places) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.glob("*.md"))
