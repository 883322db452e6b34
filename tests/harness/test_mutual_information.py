"""Bounds of information against a Gaussian pair whose information is known, negatives, and what a probe measures."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import integrate, stats

from experiments import analyse
from experiments.base.options import as_arguments
from experiments.layers import mutual_information as information
from experiments.layers.mutual_information import Critic, different_texts, gaussian_kl, info_nce, jensen_shannon
from experiments.objectives import OBJECTIVES
from experiments.run.step import total_loss
from tests.harness.test_conformance import data_of, objective_of
from tests.harness.tiny import batch_of
from tests.harness.untrained import saved, untrained

KNOWN = {0.3: 0.0116, 0.6: 0.0581, 0.9: 0.2142}
"""Jensen-Shannon divergence, in nats, of a Gaussian pair of this correlation from the product of its marginals,
by 400,000 draws, whose noise is some 0.0005."""


def log_ratio(x, z, rho):
    """Log p(x, z) / p(x) p(z) of a Gaussian pair."""
    return -0.5 * math.log(1 - rho**2) + (rho * x * z - rho**2 * (x**2 + z**2) / 2) / (1 - rho**2)


def pairs(rho, count, seed, size=256):
    """Gaussian pairs in batches [N B], of quasi-random points, so that means have little noise."""
    points = stats.qmc.Sobol(2, seed=seed).random(count)
    x, noise = stats.norm.ppf(np.random.default_rng(seed).permutation(points)).T.reshape(2, -1, size)
    return jnp.array(x, jnp.float32), jnp.array(rho * x + math.sqrt(1 - rho**2) * noise, jnp.float32)


def everything(size):
    return jnp.ones((size, 1), bool), ~jnp.eye(size, dtype=bool)


def by_quadrature(rho):
    """The divergence by a rule of 400 x 400 points: E_p log 2p / (p + q) / 2 + E_q log 2q / (p + q) / 2."""
    x = np.linspace(-8, 8, 400)
    one, other = np.meshgrid(x, x)
    product = np.exp(-(one**2 + other**2) / 2) / (2 * np.pi)
    joint = product * np.exp(log_ratio(one, other, rho))
    half = [part * np.log(2 * part / (joint + product)) for part in (joint, product)]
    return float(sum(half).sum() / 2 * (x[1] - x[0]) ** 2)


@pytest.mark.parametrize("rho", KNOWN)
def test_the_exact_critic_reaches_the_known_divergence(rho):
    x, z = pairs(rho, 2**15, seed=0)
    mask, others = everything(x.shape[1])

    def estimates(batch):
        scores = log_ratio(batch[0][:, None, None], batch[1][None, None], rho)
        return jensen_shannon(scores, mask, others).bound.mean(), info_nce(scores, mask, others).bound.mean()

    shannon, nce = (float(bounds.mean()) for bounds in jax.lax.map(estimates, (x, z)))
    assert by_quadrature(rho) == pytest.approx(KNOWN[rho], abs=5e-4)
    assert shannon == pytest.approx(by_quadrature(rho), abs=1e-3)
    assert nce == pytest.approx(-math.log(1 - rho**2) / 2, abs=0.01), "many negatives: the bound is tight"


def trained_critic(estimator, rho, steps=300):
    """A critic that has seen some batches of Gaussian pairs."""
    graph, parameters = nnx.split(Critic(1, 1, 32, rngs=nnx.Rngs(0)))
    optimizer = optax.adam(1e-2)
    mask, others = everything(128)

    def loss(parameters, x, z):
        scores = nnx.merge(graph, parameters)(x[:, None, None], z[:, None])
        return estimator(scores, mask, others).loss.mean()

    def step(carry, key):
        one, other = jax.random.split(key)
        x = jax.random.normal(one, (128,))
        z = rho * x + math.sqrt(1 - rho**2) * jax.random.normal(other, (128,))
        updates, state = optimizer.update(jax.grad(loss)(carry[0], x, z), carry[1])
        return (optax.apply_updates(carry[0], updates), state), None

    start = parameters, optimizer.init(parameters)
    (parameters, _), _ = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(
        start, jax.random.split(jax.random.key(0), steps)
    )
    return nnx.merge(graph, parameters)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["jsd", "infonce"])
@pytest.mark.parametrize("rho", [0.9, 0.0])
def test_a_trained_critic_stays_below_the_truth_on_new_pairs(name, rho):
    """It finds most of what there is, no more than there is, and nothing where there is nothing."""
    estimator = information.ESTIMATORS[name]
    critic = trained_critic(estimator, rho)
    x, z = pairs(rho, 2**13, seed=1)
    mask, others = everything(x.shape[1])

    def bound_of(batch):
        return estimator(critic(batch[0][:, None, None], batch[1][:, None]), mask, others).bound.mean()

    bound, truth = (
        float(jax.lax.map(bound_of, (x, z)).mean()),
        {"jsd": by_quadrature(rho), "infonce": -math.log(1 - rho**2) / 2}[name],
    )
    assert bound <= truth + 0.01
    assert bound >= 0.7 * truth - 0.02


def scores_of(batch=7, parts=5, seed=0, scale=3.0):
    random = np.random.default_rng(seed)
    scores = jnp.array(scale * random.normal(size=(batch, parts, batch)), jnp.float32)
    others = random.random((batch, batch)) < 0.6
    np.fill_diagonal(others, False)
    others[0] = False
    return scores, jnp.arange(parts) < jnp.array(random.integers(1, parts + 1, batch))[:, None], jnp.array(others)


def test_losses_are_those_of_loops():
    """Part by part and negative by negative, in float64 on the host."""
    scores, mask, others = map(np.asarray, scores_of())
    found = {name: estimator(*map(jnp.array, (scores, mask, others))) for name, estimator in
             information.ESTIMATORS.items()}  # fmt: skip
    for i in range(len(scores)):
        shannon, nce = [], []
        for t in np.flatnonzero(mask[i]):
            row = np.float64(scores[i, t])
            negatives = row[others[i]]
            bce = np.log1p(np.exp(negatives)).mean() if len(negatives) else 0
            shannon.append(np.log1p(np.exp(-row[i])) + bce)
            nce.append(np.log(np.exp(np.append(negatives, row[i])).sum()) - row[i])
        assert float(found["jsd"].loss[i]) == pytest.approx(np.mean(shannon), rel=1e-5)
        assert float(found["jsd"].bound[i]) == pytest.approx((2 * math.log(2) - np.mean(shannon)) / 2, abs=1e-6)
        assert float(found["infonce"].loss[i]) == pytest.approx(np.mean(nce), rel=1e-5, abs=1e-6)
        assert float(found["infonce"].bound[i]) <= math.log(1 + others[i].sum()) + 1e-6


@pytest.mark.parametrize("estimator", information.ESTIMATORS.values())
def test_large_scores_give_finite_losses_and_gradients(estimator):
    scores, mask, others = scores_of(scale=1e4)
    values, back = jax.vjp(lambda scores: estimator(scores, mask, others).loss, scores)
    assert np.isfinite(values).all()
    (gradient,) = back(jnp.array(np.random.default_rng(0).normal(size=values.shape), jnp.float32))
    assert np.isfinite(gradient).all()
    own = jnp.eye(len(scores), dtype=bool)
    unused = ~(others | own)[:, None] | ~mask[..., None]
    assert not np.asarray(gradient)[np.broadcast_to(unused, gradient.shape)].any(), "no negative, no part: no gradient"


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.5, -2.0), (-0.7, 0.8)])
def test_the_divergence_from_the_prior_is_that_of_an_integral(mean, log_variance):
    own, prior = stats.norm(mean, math.exp(log_variance / 2)), stats.norm()
    expected, _ = integrate.quad(lambda x: own.pdf(x) * (own.logpdf(x) - prior.logpdf(x)), -12, 12)
    assert float(gaussian_kl(jnp.array(mean), jnp.array(log_variance))) == pytest.approx(expected, abs=1e-6)


def test_negatives_are_other_texts_with_words():
    tokens = np.array([[3, 4, 0], [3, 4, 9], [3, 4, 9], [5, 0, 0], [0, 0, 0]])
    mask = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    batch = batch_of("gru", tokens, mask)._replace(weights=np.array([1, 1, 1, 0, 1]))
    expected = np.zeros((5, 5), int)
    expected[:, :3] = 1
    expected[:2, :2], expected[2, 2] = 0, 0  # the first two are copies: what stands at padding is no word
    np.testing.assert_array_equal(different_texts(batch), expected)


def test_targets_are_not_read():
    objective, batch = objective_of("mutual_information"), data_of("mutual_information")

    @jax.jit
    def found_of(batch):
        outputs = objective(batch)
        return total_loss(objective, objective.terms(outputs, batch)), outputs["mean"]

    found = [found_of(batch._replace(targets=targets)) for targets in (batch.targets, None)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert OBJECTIVES["mutual_information"].needs == ("words",)


def test_weights_of_terms_are_options():
    objective = objective_of("mutual_information")
    objective.options = dataclasses.replace(objective.options, part=2.0, whole=0.0, prior=0.5)
    batch = data_of("mutual_information")
    terms = objective.terms(objective(batch), batch)
    expected = 2 * float(terms["local"].value) + 0.5 * float(terms["prior"].value)
    assert float(total_loss(objective, terms)) == pytest.approx(expected, rel=1e-6)


def asked(run, capsys, **options):
    pytest.importorskip("sklearn")
    line = [str(run), "--analysis", "probe", "--split", "all", *as_arguments(options)]
    assert analyse.main(line) == 0, capsys.readouterr().err
    files = (run / "analyses").glob("probe-all*.json")  # an answer to other options has a file of its own
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    return {row["vectors"]: row for row in json.loads(newest.read_text())["table"]}


def test_a_probe_of_a_run_that_was_not_trained(tmp_path, capsys):
    """It equals the untrained model; words tell the classes of the toy; shuffled classes are found by chance."""
    run = saved(untrained("--pooler", "mean"), tmp_path / "run")
    rows = asked(run, capsys)
    assert list(rows) == ["this run", "untrained", "LSA-128"]
    assert {**rows["this run"], "vectors": 0} == {**rows["untrained"], "vectors": 0}
    assert rows["LSA-128"]["probe"] > 0.9
    for row in asked(run, capsys, **{"ask.shuffled": True}).values():
        assert row["5-NN"] < 0.6, row
        assert row["probe"] < 0.6, row


def test_what_a_probe_cannot_use_is_one_line(tmp_path, one_line):
    pytest.importorskip("sklearn")
    run = saved(untrained("--pooler", "mean"), tmp_path / "run")
    one_line(analyse.main, [str(run), "--analysis", "probe"], 2, "give --split all")
    few = [str(run), "--analysis", "probe", "--split", "all", "--ask.neighbours", "900"]
    one_line(analyse.main, few, 65, "there are too few training texts")
