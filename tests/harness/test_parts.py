"""Every encoder with every pooler: padding never changes a result."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.encoders import ENCODERS
from experiments.layers.head import Head, HeadOptions
from experiments.layers.text_model import is_exponent, leaf_name
from experiments.poolers import POOLERS
from experiments.run import optimiser
from experiments.run.optimiser import OptimOptions
from tests.harness.tiny import MASK, STATES, TOKENS, VOCABULARY, batch_of, encoder_of, model_of, pooler_of

ORDERED = ("first", "last")
EACH_ENCODER = pytest.mark.parametrize("name", sorted(ENCODERS))
EACH_POOLER = pytest.mark.parametrize("name", sorted(POOLERS))
# An encoder gives states to whatever pooler, so not every pair has to be tried: every part is in three pairs and more.
PAIRS = [
    (encoder, pooler)
    for (i, encoder), (j, pooler) in itertools.product(enumerate(sorted(ENCODERS)), enumerate(sorted(POOLERS)))
    if (i + j) % 4 == 0
]


def with_padding(x: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """The same texts with other padding, longer where `padding` is."""
    result = padding.copy()
    result[:, :5][MASK] = x[MASK]
    return result


@pytest.mark.sampled(15)
@pytest.mark.parametrize(("encoder", "pooler"), PAIRS)
def test_pairs(encoder, pooler):
    """Finite gradients with an empty text; neither padding nor the neighbours in the batch change a result."""
    graph, parameters, rest = nnx.split(model_of(encoder, pooler), nnx.Param, ...)

    @jax.jit
    def logits_and_gradients(parameters, batch):
        def total(parameters):
            logits = nnx.merge(graph, parameters, rest)(batch)["logits"]
            return jnp.square(logits).sum(), logits

        gradients, logits = jax.grad(total, has_aux=True)(parameters)
        return logits, gradients

    garbage = with_padding(TOKENS, np.random.default_rng(1).integers(0, VOCABULARY, (4, 5)))
    logits, gradients = logits_and_gradients(parameters, batch_of(encoder))
    turned, same = logits_and_gradients(parameters, batch_of(encoder, garbage[::-1].copy(), MASK[::-1].copy()))
    np.testing.assert_allclose(turned[::-1], logits, rtol=1e-5, atol=1e-6)
    assert np.ptp(np.asarray(logits), axis=0).max() > 1e-3, "the model must tell texts apart"
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        assert np.isfinite(np.asarray(one)).all()
    # The first state of a recurrent encoder has nothing to recall.
    assert pooler == "first" or all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients) if leaf.ndim > 1)


@pytest.mark.sampled(6)
@EACH_ENCODER
def test_states_do_not_see_appended_padding_or_neighbours(name):
    encode = jax.jit(encoder_of(name).__call__)

    def read(tokens, mask):
        return map(np.asarray, encode(*batch_of(name, tokens, mask)[:2]))

    together, mask = read(TOKENS, MASK)
    longer = with_padding(TOKENS, np.random.default_rng(1).integers(0, VOCABULARY, (4, 8)))
    longer, longer_mask = read(longer, np.pad(MASK, ((0, 0), (0, 3))))
    np.testing.assert_array_equal(longer_mask.sum(axis=1), mask.sum(axis=1))
    np.testing.assert_allclose(longer[longer_mask], together[mask], rtol=1e-5, atol=1e-6)
    assert np.isfinite(longer).all()
    alone, alone_mask = read(TOKENS[2:3, :3], np.ones((1, 3), bool))
    np.testing.assert_allclose(alone[alone_mask], together[2][mask[2]], rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(6)
@EACH_ENCODER
def test_only_encoders_without_context_are_blind_to_order(name):
    encode, tokens = jax.jit(encoder_of(name).__call__), np.array([[3, 4, 5, 6, 7, 8]])
    there, back = (
        np.asarray(encode(*batch_of(name, each, np.ones((1, 6), bool))[:2])[0]) for each in (tokens, tokens[:, ::-1])
    )
    moved = back[:, ::-1] - there
    assert (np.abs(moved).max() < 1e-6) == (name in ("bag", "mlp"))


@pytest.mark.sampled(6)
@EACH_POOLER
def test_pooling_ignores_appended_padding_and_neighbours(name):
    pooler = pooler_of(name)
    pool = jax.jit(pooler.__call__)
    together, _ = pool(STATES, MASK)
    longer = with_padding(STATES, np.full((4, 8, 8), np.nan, np.float32))
    longer, _ = pool(longer, np.pad(MASK, ((0, 0), (0, 3))))
    np.testing.assert_allclose(longer, together, rtol=1e-5, atol=1e-6)
    alone, _ = pool(STATES[2:3, :3], np.ones((1, 3), bool))
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-5, atol=1e-6)
    assert together.shape == (4, pooler.features)


@EACH_POOLER
def test_the_order_of_tokens_matters_to_first_and_last_only(name):
    pool, mask = jax.jit(pooler_of(name).__call__), np.ones((4, 5), bool)
    difference = pool(STATES, mask)[0] - pool(STATES[:, ::-1], mask)[0]
    assert (np.abs(np.asarray(difference)).max() < 1e-5) == (name not in ORDERED)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@EACH_POOLER
def test_padded_states_may_hold_anything(name, poison):
    pooler = pooler_of(name)
    states, mask = jnp.asarray(STATES), jnp.asarray(MASK)
    clean = jnp.where(mask[..., None], states, 0)
    poisoned = jnp.where(mask[..., None], states, poison)

    @jax.jit
    def value_and_gradient(states):
        pooled, pullback = jax.vjp(lambda states: pooler(states, mask)[0], states)
        (gradient,) = pullback(jnp.cos(jnp.arange(4.0 * pooler.features)).reshape(4, -1))
        return pooled, gradient

    for got, expected in zip(value_and_gradient(poisoned), value_and_gradient(clean), strict=True):
        np.testing.assert_array_equal(got, expected)
    _, gradient = value_and_gradient(poisoned)
    assert not np.asarray(gradient)[~MASK].any()
    assert np.asarray(gradient)[MASK].any()


@pytest.mark.sampled(6)
@EACH_POOLER
def test_a_text_without_words_pools_to_zero(name):
    pooled, shown = jax.jit(pooler_of(name).__call__)(jnp.ones((2, 3, 8)), jnp.zeros((2, 3), bool))
    assert not np.asarray(pooled).any()
    assert not np.asarray(shown.get("attention", 0)).any()


@pytest.mark.sampled(6)
@EACH_ENCODER
def test_noise_comes_only_from_the_key(name):
    encoder = encoder_of(name)
    tokens, mask = batch_of(name)[:2]
    noisy = jax.jit(lambda key: encoder(tokens, mask, nnx.Rngs(dropout=key))[0])
    same, again, other = map(noisy, map(jax.random.key, (1, 1, 2)))
    np.testing.assert_array_equal(same, again)
    states, real = encoder(tokens, mask)
    assert np.abs(np.asarray(same - other)[np.asarray(real)]).max() > 0
    np.testing.assert_array_equal(encoder(tokens, mask)[0], states)


def test_dropout_keeps_the_mean():
    head = Head(HeadOptions(dropout=0.4), 10000, 1, rngs=nnx.Rngs(0))
    head.linear.kernel[...] = jnp.ones((10000, 1))
    dropped = float(head(jnp.ones((1, 10000)), nnx.Rngs(dropout=0))[0, 0])
    assert dropped != 10000
    assert dropped == pytest.approx(10000, rel=0.05)


def test_the_model_names_what_lies_between():
    outputs = model_of("bag", "attention")(batch_of("bag"))
    shapes = {name: value.shape for name, value in outputs.items()}
    expected = {"states": (4, 5, 8), "mask": (4, 5), "pooled": (4, 8), "attention": (4, 5), "logits": (4, 4)}
    assert shapes == expected


def first_update(options: OptimOptions) -> tuple[dict, dict]:
    """Parameters and their first update, under a gradient of zero for all but the exponent."""
    parameters = nnx.state(model_of("bag", "learned_norm"), nnx.Param)
    optimizer = optimiser.optimizer(options, parameters, steps=10)
    gradients = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * 0 + is_exponent(path), parameters)
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return tuple(
        {leaf_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (parameters, updates)
    )


@pytest.mark.slow
def test_the_exponent_has_its_own_rate_and_no_decay():
    options = OptimOptions(learning_rate=0.01, p_multiplier=7.0, weight_decay=0.5, warmup=0.0)
    parameters, updates = first_update(options)
    # Adam's first step is the sign of the gradient.
    assert updates["pooler.pool.rho"] == pytest.approx(-0.07, rel=1e-4)
    np.testing.assert_allclose(updates["head.linear.kernel"], -0.005 * parameters["head.linear.kernel"], rtol=1e-5)
    assert not updates["head.linear.bias"].any()


def test_the_step_size_rises_and_falls():
    schedule = optimiser.schedule(OptimOptions(learning_rate=1.0, warmup=0.2), steps=10)
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 2, 6, 10)], [0, 0.5, 1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["learned_norm", "naive_norm", "power_mean"])
def test_states_as_logarithms_give_a_logarithm(name):
    """r = log(sum_i v_i exp(p x_i)) / p: signed numbers from signed states, and 0 for a text without tokens."""
    options = dataclasses.replace(POOLERS[name].Options(), scale_limit="exp", exponent="positive", p_init=0.7)
    pooler = POOLERS[name](options, 8, rngs=nnx.Rngs(0))
    states, mask = jnp.array(STATES), jnp.array(MASK)
    found, _ = pooler(states, mask)
    scores = pooler.scores(states, mask)
    z = np.zeros(MASK.shape) if scores is None else 0.7 * np.float64(scores)
    for row, real in enumerate(MASK):
        x, v = np.float64(STATES[row][real]), np.exp(z[row][real])
        expected = np.log(v @ np.exp(0.7 * x) / v.sum()) / 0.7 if real.any() else np.zeros(8)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
    assert (np.asarray(found) < 0).any()
