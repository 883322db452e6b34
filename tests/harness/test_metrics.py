"""Metrics against hand arithmetic and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from experiments.objectives.losses import cross_entropy, weighted_mean
from experiments.objectives.metrics import Classification

ONE_HOT = 50.0 * np.eye(3, dtype=np.float32)


def of(truth, predicted, weights=None):
    weights = np.ones(len(truth), np.float32) if weights is None else np.asarray(weights, np.float32)
    return Classification.of(jnp.asarray(ONE_HOT[predicted]), jnp.asarray(truth), jnp.asarray(weights))


def test_hand_arithmetic():
    numbers = of([0, 0, 1, 2], [0, 1, 1, 1]).compute()
    assert numbers["accuracy"] == 2 / 4
    # Class 0: precision 1, recall 1/2. Class 1: precision 1/3, recall 1. Class 2: never predicted.
    assert numbers["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert numbers["loss"] == pytest.approx(50 * 2 / 4)


def test_classes_that_do_not_occur_are_left_out():
    assert of([0, 1], [0, 1]).compute()["macro_f1"] == 1


def test_rows_of_weight_zero_do_not_count():
    assert of([0, 1, 2], [0, 1, 0], [1, 1, 0]).compute() == of([0, 1], [0, 1]).compute()


def test_sums_over_batches_are_the_sums_over_all():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 3, (2, 60))
    merged = of(truth[:13], predicted[:13]) + of(truth[13:], predicted[13:])
    assert merged.compute() == pytest.approx(of(truth, predicted).compute(), rel=1e-6)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    truth, predicted = random.integers(0, 3, (2, 200))
    numbers = of(truth, predicted).compute()
    assert numbers["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert numbers["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))


def test_losses():
    losses = cross_entropy(jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]])), jnp.array([1, 0]))
    np.testing.assert_allclose(losses, [-np.log(0.75), -np.log(0.5)], rtol=1e-6)
    assert weighted_mean(jnp.array([2.0, 4.0, 9.0]), jnp.array([1.0, 1.0, 0.0])) == 3
    assert weighted_mean(jnp.array([2.0]), jnp.array([0.0])) == 0
