"""Metrics of objectives against hand arithmetic, scikit-learn and scipy; losses by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.base.contracts import Last, Mean
from experiments.layers.classifier import Confusion
from experiments.layers.losses import cross_entropy
from experiments.objectives.language_model import Likelihood
from experiments.objectives.multilabel import TagCounts
from experiments.objectives.regress import Ranked


def confusion(truth, predicted) -> Confusion:
    return Confusion(jnp.zeros((3, 3)).at[jnp.asarray(truth), jnp.asarray(predicted)].add(1))


def tag_counts(truth, given) -> TagCounts:
    truth, given = np.asarray(truth, np.float32), np.asarray(given, np.float32)
    return TagCounts(*(jnp.asarray(each.sum(axis=0)) for each in (truth * given, truth, given)))


def ranked(predictions, targets, weights=None) -> Ranked:
    weights = np.ones(len(targets)) if weights is None else weights
    return Ranked(*(np.asarray(each, np.float32) for each in (predictions, targets, weights)))


def test_accuracy_and_macro_f1_by_hand():
    numbers = confusion([0, 0, 1, 2], [0, 1, 1, 1]).compute()
    assert numbers["accuracy"] == 2 / 4
    # Class 0: precision 1, recall 1/2. Class 1: precision 1/3, recall 1. Class 2: never predicted.
    assert numbers["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_classes_and_tags_that_do_not_occur_are_left_out():
    assert confusion([0, 1], [0, 1]).compute()["macro_f1"] == 1
    assert tag_counts([[1, 0, 0]], [[1, 0, 0]]).compute() == {"micro_f1": 1, "macro_f1": 1}
    assert tag_counts([[0, 0]], [[0, 0]]).compute() == {"micro_f1": 0, "macro_f1": 0}, "there is nothing to find"


def test_micro_and_macro_f1_by_hand():
    numbers = tag_counts([[1, 1, 0], [1, 0, 0], [0, 0, 1]], [[1, 0, 0], [1, 1, 0], [0, 0, 0]]).compute()
    # Tag 0: 2 hits of 2 truths and 2 given. Tag 1: no hit of 1 and 1. Tag 2: no hit of 1 and 0.
    assert numbers["micro_f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert numbers["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)


def test_error_and_spearman_by_hand():
    numbers = ranked([1, 2, 3, 9], [1, 2, 4, 3]).compute()
    assert numbers["mse"] == pytest.approx((0 + 0 + 1 + 36) / 4)
    # Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15).
    assert numbers["spearman"] == pytest.approx(1 - 12 / 60)
    assert ranked([2, 2], [1, 3]).compute() == {"mse": 1, "spearman": 0}, "a constant has no ranks"


def test_perplexity_by_hand():
    """Words of probability 1/2, 1/8 and 1/4: the geometric mean is 1/4."""
    assert Likelihood(jnp.log(2 * 8 * 4.0), jnp.array(3.0)).compute()["perplexity"] == pytest.approx(4)
    assert Likelihood(jnp.array(0.0), jnp.array(0.0)).compute() == {"perplexity": 1}, "of no words"


def test_rows_of_weight_zero_do_not_count():
    assert ranked([1, 2, 5], [2, 1, 0], [1, 1, 0]).compute() == ranked([1, 2], [2, 1]).compute()


def test_metrics_of_batches_are_those_of_all():
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, (2, 60))
    tags = random.integers(0, 2, (2, 60, 4))
    numbers = random.normal(size=(2, 60))
    for of, (one, two) in ((confusion, classes), (tag_counts, tags), (ranked, numbers)):
        merged = of(one[:13], two[:13]) + of(one[13:], two[13:])
        assert merged.compute() == pytest.approx(of(one, two).compute(), rel=1e-6)
    assert (Likelihood(1.0, 2.0) + Likelihood(3.0, 4.0)).compute() == Likelihood(4.0, 6.0).compute()


def test_scikit_learn_and_scipy_agree():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    truth, predicted = random.integers(0, 3, (2, 200))
    numbers = confusion(truth, predicted).compute()
    assert numbers["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert numbers["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    truth, given = random.random((2, 200, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]
    numbers = tag_counts(truth, given).compute()
    for average in ("micro", "macro"):
        assert numbers[f"{average}_f1"] == pytest.approx(metrics.f1_score(truth, given, average=average))
    predicted, truth = random.integers(0, 8, (2, 200))  # with ties
    numbers = ranked(predicted, truth).compute()
    assert numbers["mse"] == pytest.approx(metrics.mean_squared_error(truth, predicted))
    assert numbers["spearman"] == pytest.approx(stats.spearmanr(predicted, truth).statistic)
    logits, words = random.normal(size=(200, 9)).astype(np.float32), random.integers(0, 9, 200)
    nats = cross_entropy(jnp.asarray(logits), jnp.asarray(words)).sum()
    p = np.exp(logits.astype(np.float64))
    expected = np.exp(metrics.log_loss(words, p / p.sum(axis=1, keepdims=True), labels=range(9)))
    assert Likelihood(nats, jnp.array(200.0)).compute()["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_losses_means_and_last_values():
    losses = cross_entropy(jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]])), jnp.array([1, 0]))
    np.testing.assert_allclose(losses, [-np.log(0.75), -np.log(0.5)], rtol=1e-6)
    assert Mean.of(jnp.array([2.0, 4.0, 9.0]), jnp.array([1.0, 1.0, 0.0])).value == 3
    assert Mean.of(jnp.array([2.0]), jnp.array([0.0])).value == 0
    assert (Mean(jnp.array(2.0), jnp.array(1.0)) + Mean(jnp.array(4.0), jnp.array(2.0))).value == 2
    assert (Last(jnp.array(2.0)) + Last(jnp.array(4.0))).value == 4
