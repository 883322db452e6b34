"""Objectives that learn from another run, and the comparison of runs: against NumPy and scipy."""

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial import distance

from experiments import analyse, export, train
from experiments.analyses.divergence import Divergence, DivergenceOptions
from experiments.run import loop
from experiments.run.config import parse_args
from experiments.run.step import total_loss
from experiments.run.trained import load_run
from tests.harness.conftest import TINY
from tests.harness.test_analyses import EXAMPLES, TEXTS, runs  # noqa: F401  (a fixture)
from tests.harness.test_conformance import GUIDE, data_of, objective_of


@pytest.fixture
def base(runs):  # noqa: F811
    """The folder of a model with attention."""
    return runs("attention")[1]


def by_numpy(objective, batch):
    """Distances of the outputs and divergences of the attention of the texts that have words, in float64."""
    outputs = objective(batch)
    y = special.softmax(np.float64(outputs["logits"]), axis=1)
    a = np.float64(outputs["attention"])
    rows = [0, 1, 2]
    variation = np.abs(y - GUIDE[1]).sum(axis=1) / 2
    kl = [stats.entropy(a[row][GUIDE[0][row] > 0], GUIDE[0][row][GUIDE[0][row] > 0]) for row in rows]
    js = [distance.jensenshannon(a[row], GUIDE[0][row]) ** 2 for row in rows]
    return variation, np.array([*kl, 0]), np.array([*js, 0])


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_the_terms_of_the_adversary(divergence):
    objective, batch = objective_of("adversary"), data_of("adversary")
    objective.strength, objective.divergence = 0.7, divergence
    batch = batch._replace(weights=np.array([1, 1, 1, 0], np.float32))
    variation, kl, js = by_numpy(objective, batch)
    outputs = objective(batch)
    terms = objective.terms(outputs, batch)
    between = (kl if divergence == "kl" else js)[:3].mean()
    assert float(terms["variation"].value) == pytest.approx(variation[:3].mean(), rel=1e-4)
    assert float(terms["divergence"].value) == pytest.approx(between, rel=1e-3, abs=1e-6)
    expected = variation[:3].mean() - 0.7 * between
    assert float(total_loss(objective, terms)) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    found = objective.metrics(outputs, batch).compute()
    assert found["objective"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found["jensen_shannon"] == pytest.approx(js[:3].mean(), rel=1e-3, abs=1e-6)
    assert found["variation"] == pytest.approx(variation[:3].mean(), rel=1e-4)


def test_the_guide_pools_the_states():
    objective, batch = objective_of("guided"), data_of("guided")
    outputs = objective(batch)
    expected = np.einsum("bt,btd->bd", GUIDE[0], np.where(np.asarray(batch.mask)[..., None], outputs["states"], 0))
    np.testing.assert_allclose(outputs["pooled"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(objective.weights(outputs)["attention"], GUIDE[0])


def config_of(base, folder, *options):
    line = [*TINY, "--pooler", "attention", "--epochs", "1", "--out", str(folder), "--head.base", str(base), *options]
    return parse_args(line)


@pytest.mark.slow
def test_an_adversary_trains_and_its_run_needs_no_base(base, tmp_path, capsys):
    found = loop.train(config_of(base, tmp_path / "run", "--objective", "adversary", "--head.strength", "0.5"))
    assert {"objective", "variation", "jensen_shannon", "accuracy"} <= found["test"].keys()
    assert len(found["data"]["base"]) == 16
    answers = list(load_run(tmp_path / "run").predict(TEXTS))
    assert len(answers) == len(TEXTS)
    line = [str(base), "--analysis", "divergence", "--ask.others", str(tmp_path / "run"), "--out", str(tmp_path)]
    assert analyse.main(line) == 0
    assert "| run | attention |" in capsys.readouterr().out
    assert (tmp_path / "divergence-test.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_guided_run_asks_its_base(base, tmp_path, one_line):
    line = [*TINY, "--objective", "guided", "--epochs", "1", "--out", str(tmp_path / "run"), "--head.base", str(base)]
    loop.train(parse_args(line))
    trained = load_run(tmp_path / "run")
    of_base = dict(zip(TEXTS, _attention(load_run(base), TEXTS), strict=True))
    for text, weights in zip(TEXTS, _attention(trained, TEXTS), strict=True):
        np.testing.assert_allclose(weights, of_base[text], rtol=1e-5, atol=1e-7)
    one_line(export.main, [str(tmp_path / "run"), "--out", str(tmp_path / "export")], 2, "it has no export")


def _attention(trained, texts):
    return [
        row
        for batch, outputs in trained.outputs(texts)
        for row in np.asarray(outputs["attention"])[: int(batch.weights.sum())]
    ]


@pytest.mark.slow
def test_the_same_model_is_at_no_distance_and_another_as_far_as_scipy_says(runs):  # noqa: F811
    trained, folder = runs("learned_norm")
    other, elsewhere = runs("learned_norm", "--seed", "5")
    findings = Divergence(DivergenceOptions((folder, elsewhere)))(trained, iter(EXAMPLES))
    same, apart = findings.table[:3], findings.table[3:]
    assert [row["of the words"] for row in apart] == ["attention", "contribution", "effective"]
    assert all(row["mean JSD"] == row["mean change"] == 0 for row in same)
    texts = [text for text in TEXTS if " " in text]
    expected = [
        distance.jensenshannon(one, two) ** 2
        for one, two in zip(_effective(trained, texts), _effective(other, texts), strict=True)
    ]
    row = next(row for row in apart if row["of the words"] == "effective")
    assert row["mean JSD"] == pytest.approx(np.mean(expected), rel=1e-3)
    outputs = [np.stack([*_outputs(one, texts)]) for one in (trained, other)]
    assert row["mean change"] == pytest.approx(np.abs(outputs[0] - outputs[1]).sum(axis=1).mean() / 2, rel=1e-3)


def _effective(trained, texts):
    """What a learned norm calls its attention in the outputs of a model is the effective weight."""
    return _attention(trained, texts)


def _outputs(trained, texts):
    for batch, outputs in trained.outputs(texts):
        yield from special.softmax(np.float64(outputs["logits"]), axis=1)[: int(batch.weights.sum())]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("--objective adversary --pooler attention", 2, "--head.base RUN"),
        ("--objective guided", 2, "--head.base RUN"),
        ("--objective guided --head.base nowhere", 65, "nowhere does not exist"),
        ("--objective adversary --pooler attention --head.base MEAN", 2, "has no attention of words"),
        ("--objective adversary --pooler mean --head.base RUN", 2, "an adversary needs a pooling with attention"),
        ("--objective guided --head.base RUN --data.min-count 900", 2, "has other words or classes"),
    ],
)
def test_hostile(line, code, message, base, runs, tmp_path, one_line):  # noqa: F811
    line = line.replace("MEAN", str(runs("mean")[1])).replace("RUN", str(base), 1 if "RUN" in line else 0)
    one_line(train.main, [*TINY, *line.split(), "--out", str(tmp_path / "run")], code, message)


@pytest.mark.parametrize(
    ("others", "code", "message"),
    [
        ("", 2, "--ask.others RUN"),
        ("--ask.others nowhere", 65, "nowhere does not exist"),
        ("--ask.others MEAN", 2, "weighs words in no way that this run does"),
        ("--ask.others SHORT", 2, "reads other words of the texts"),
    ],
)
def test_hostile_comparisons(others, code, message, base, runs, one_line):  # noqa: F811
    for name, options in (("MEAN", ("mean",)), ("SHORT", ("attention", "--data.max-len", "2"))):
        others = others.replace(name, str(runs(*options)[1])) if name in others else others
    one_line(analyse.main, [str(base), "--analysis", "divergence", *others.split()], code, message)
