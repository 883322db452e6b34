"""Every encoder with every pooler: padding never changes a result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import build
from experiments.config import OptimOptions, default_config
from experiments.encoders import ENCODERS
from experiments.heads import Head, HeadOptions
from experiments.model import TextClassifier, is_exponent, leaf_name
from experiments.poolers import POOLERS

VOCABULARY = 30
LENGTHS = np.array([5, 1, 3, 0])
MASK = np.arange(5) < LENGTHS[:, None]
TOKENS = np.where(MASK, np.random.default_rng(0).integers(2, VOCABULARY, MASK.shape), 0)
EVERY = pytest.mark.parametrize(
    ("encoder", "pooler"), [(encoder, pooler) for encoder in sorted(ENCODERS) for pooler in sorted(POOLERS)]
)


def model_of(encoder: str, pooler: str) -> TextClassifier:
    return build.model(default_config(encoder=encoder, pooler=pooler), VOCABULARY, classes=4)


def pooler_of(name: str, features: int = 6):
    return POOLERS[name](POOLERS[name].Options(), features, rngs=nnx.Rngs(0))


def encoder_of(name: str):
    return ENCODERS[name](ENCODERS[name].Options(), VOCABULARY, rngs=nnx.Rngs(0))


@EVERY
def test_padding_changes_nothing(encoder, pooler):
    model = model_of(encoder, pooler)
    garbage = np.random.default_rng(1).integers(0, VOCABULARY, (4, 8))
    garbage[:, :5] = np.where(MASK, TOKENS, garbage[:, :5])
    short, _ = model(jnp.asarray(TOKENS), jnp.asarray(MASK))
    long, _ = model(jnp.asarray(garbage), jnp.pad(jnp.asarray(MASK), ((0, 0), (0, 3))))
    np.testing.assert_allclose(long, short, rtol=1e-5, atol=1e-6)
    assert np.ptp(np.asarray(short), axis=0).max() > 1e-3, "the model must tell texts apart"


@EVERY
def test_a_text_does_not_see_its_neighbours(encoder, pooler):
    model = model_of(encoder, pooler)
    together, _ = model(jnp.asarray(TOKENS), jnp.asarray(MASK))
    for row, length in enumerate(LENGTHS[:3]):
        alone, _ = model(jnp.asarray(TOKENS[row : row + 1, :length]), jnp.ones((1, length), bool))
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-6)


@EVERY
def test_gradients_are_finite_with_an_empty_text(encoder, pooler):
    graph, *states = nnx.split(model_of(encoder, pooler), nnx.Param, ...)

    def total(parameters):
        logits, _ = nnx.merge(graph, parameters, states[1])(jnp.asarray(TOKENS), jnp.asarray(MASK))
        return jnp.square(logits).sum()

    gradients = jax.grad(total)(states[0])
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients) if leaf.ndim > 1)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("name", sorted(POOLERS))
def test_padded_states_may_hold_anything(name, poison):
    pooler = pooler_of(name)
    states = jnp.asarray(np.random.default_rng(2).normal(size=(4, 5, 6)), jnp.float32)
    mask = jnp.asarray(MASK)
    clean = jnp.where(mask[..., None], states, 0)
    poisoned = jnp.where(mask[..., None], states, poison)

    def value_and_gradient(states):
        pooled, pullback = jax.vjp(lambda states: pooler(states, mask)[0], states)
        (gradient,) = pullback(jnp.cos(jnp.arange(24.0)).reshape(4, 6))
        return np.asarray(pooled), np.asarray(gradient)

    for got, expected in zip(value_and_gradient(poisoned), value_and_gradient(clean), strict=True):
        np.testing.assert_array_equal(got, expected)
    _, gradient = value_and_gradient(poisoned)
    assert not gradient[~MASK].any()
    assert gradient[MASK].any()


@pytest.mark.parametrize("name", sorted(POOLERS))
def test_a_text_without_words_pools_to_zero(name):
    pooled, shown = pooler_of(name)(jnp.ones((2, 3, 6)), jnp.zeros((2, 3), bool))
    np.testing.assert_array_equal(pooled, np.zeros((2, 6)))
    assert not np.asarray(shown.get("attention", 0)).any()


def test_mean_and_max_by_hand():
    states = jnp.array([[[1.0, -4.0], [3.0, -2.0], [100.0, 100.0]]])
    mask = jnp.array([[True, True, False]])
    np.testing.assert_array_equal(pooler_of("mean", 2)(states, mask)[0], [[2.0, -3.0]])
    np.testing.assert_array_equal(pooler_of("max", 2)(states, mask)[0], [[3.0, -2.0]])


def test_attention_is_the_softmax_of_its_scores():
    pooler = pooler_of("attention", 2)
    states = jnp.array([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]]])
    pooled, shown = pooler(states, jnp.array([[True, True, False]]))
    hidden = np.tanh(np.asarray(states[0, :2]) @ np.asarray(pooler.project.kernel[...]))
    powers = np.exp(hidden @ np.asarray(pooler.query.kernel[...]))[:, 0]
    np.testing.assert_allclose(shown["attention"], [[*powers / powers.sum(), 0.0]], rtol=1e-5)
    np.testing.assert_allclose(pooled, [powers @ np.asarray(states[0, :2]) / powers.sum()], rtol=1e-5)


def test_learned_norm_shows_its_exponent_and_attention():
    pooler = pooler_of("learned_norm")
    _, shown = pooler(jnp.ones((4, 5, 6)), jnp.asarray(MASK))
    assert float(shown["p"]) == float(pooler.p) == pytest.approx(2.0)
    np.testing.assert_allclose(np.asarray(shown["attention"]).sum(1), [1, 1, 1, 0], rtol=1e-6)


def gru_by_hand(inputs: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One direction over one text, a word at a time."""
    state = np.zeros(len(recurrent))
    states = []
    for said in inputs:
        x_reset, x_update, x_new = np.split(said, 3)
        h_reset, h_update, h_new = np.split(state @ recurrent, 3)
        reset, update = 1 / (1 + np.exp(-(x_reset + h_reset))), 1 / (1 + np.exp(-(x_update + h_update)))
        state = update * state + (1 - update) * np.tanh(x_new + reset * (h_new + bias))
        states.append(state)
    return np.array(states)


def test_bigru_reads_both_ways_from_the_ends_of_the_text():
    encoder = encoder_of("bigru")
    encoder.bias[...] = jax.random.normal(jax.random.key(3), encoder.bias[...].shape)
    states = np.asarray(encoder(jnp.asarray(TOKENS), jnp.asarray(MASK)))
    recurrent, bias = np.asarray(encoder.recurrent[...], float), np.asarray(encoder.bias[...], float)
    for row, length in enumerate(LENGTHS):
        words = encoder.words(jnp.asarray(TOKENS[row : row + 1, :length]))
        forward, backward = np.split(np.asarray(encoder.inputs(words), float)[0], 2, axis=1)
        by_hand = gru_by_hand(forward, recurrent[0], bias[0, 0])
        np.testing.assert_allclose(states[row, :length, :64], by_hand.reshape(length, 64), rtol=1e-4, atol=1e-5)
        by_hand = gru_by_hand(backward[::-1], recurrent[1], bias[1, 0])[::-1]
        np.testing.assert_allclose(states[row, :length, 64:], by_hand.reshape(length, 64), rtol=1e-4, atol=1e-5)


def test_a_filter_sees_the_words_around_it():
    encoder = encoder_of("cnn")
    tokens = jnp.array([[2, 3, 4, 5, 6]])
    mask = jnp.ones((1, 5), bool)
    changed = np.asarray(encoder(tokens, mask) - encoder(tokens.at[0, 0].set(9), mask)).any(axis=2)[0]
    np.testing.assert_array_equal(changed, [True, True, False, False, False])


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_noise_comes_only_from_the_key(name):
    encoder, tokens, mask = encoder_of(name), jnp.asarray(TOKENS), jnp.asarray(MASK)
    same, again, other = (encoder(tokens, mask, nnx.Rngs(dropout=key)) for key in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert np.abs(np.asarray(same - other)[MASK]).max() > 0
    np.testing.assert_array_equal(encoder(tokens, mask), encoder(tokens, mask))


def test_dropout_keeps_the_mean():
    head = Head(HeadOptions(dropout=0.4), 10000, 1, rngs=nnx.Rngs(0))
    head.linear.kernel[...] = jnp.ones((10000, 1))
    dropped = float(head(jnp.ones((1, 10000)), nnx.Rngs(dropout=0))[0, 0])
    assert dropped != 10000
    assert dropped == pytest.approx(10000, rel=0.05)


def test_the_model_names_what_lies_between():
    logits, between = model_of("bag", "attention")(jnp.asarray(TOKENS), jnp.asarray(MASK))
    assert logits.shape == (4, 4)
    shapes = {name: value.shape for name, value in between.items()}
    assert shapes == {"states": (4, 5, 128), "pooled": (4, 128), "attention": (4, 5)}


def first_update(options: OptimOptions) -> tuple[dict, dict]:
    """Parameters and their first update, under a gradient of zero for all but the exponent."""
    parameters = nnx.state(model_of("bag", "learned_norm"), nnx.Param)
    optimizer = build.optimizer(options, parameters, steps=10)
    gradients = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * 0 + is_exponent(path), parameters)
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return tuple(
        {leaf_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (parameters, updates)
    )


def test_the_exponent_has_its_own_rate_and_no_decay():
    options = OptimOptions(learning_rate=0.01, p_multiplier=7.0, weight_decay=0.5, warmup=0.0)
    parameters, updates = first_update(options)
    # Adam's first step is the sign of the gradient.
    assert updates["pooler.pool.rho"] == pytest.approx(-0.07, rel=1e-4)
    np.testing.assert_allclose(updates["head.linear.kernel"], -0.005 * parameters["head.linear.kernel"], rtol=1e-5)
    assert not updates["head.linear.bias"].any()


def test_the_step_size_rises_and_falls():
    schedule = build.schedule(OptimOptions(learning_rate=1.0, warmup=0.2), steps=10)
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 2, 6, 10)], [0, 0.5, 1, 0.5, 0], atol=1e-6)
