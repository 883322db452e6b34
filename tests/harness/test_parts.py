"""Every encoder with every pooler: padding never changes a result."""

import dataclasses

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
STATES = np.random.default_rng(2).normal(size=(4, 5, 8)).astype(np.float32)
ORDERED = ("first", "last")
SIZES = {"embedding": 8, "features": 8, "hidden": 8}
EACH_ENCODER = pytest.mark.parametrize("name", sorted(ENCODERS))
# A pair is a model to compile: here every part with its simplest partner, all other pairs among the slow tests.
PAIRS = [
    pytest.param(encoder, pooler, marks=() if encoder == "bag" or pooler == "mean" else pytest.mark.slow)
    for encoder in sorted(ENCODERS)
    for pooler in sorted(POOLERS)
]
EACH_POOLER = pytest.mark.parametrize("name", sorted(POOLERS))


def tiny(options):
    fields = {field.name for field in dataclasses.fields(options)}
    return dataclasses.replace(options, **{name: size for name, size in SIZES.items() if name in fields})


def model_of(encoder: str, pooler: str) -> TextClassifier:
    config = default_config(encoder=encoder, pooler=pooler)
    config = dataclasses.replace(config, encode=tiny(config.encode), pool=tiny(config.pool))
    return build.model(config, VOCABULARY, classes=4)


def pooler_of(name: str, features: int = 8):
    return POOLERS[name](tiny(POOLERS[name].Options()), features, rngs=nnx.Rngs(0))


def encoder_of(name: str):
    return ENCODERS[name](tiny(ENCODERS[name].Options()), VOCABULARY, rngs=nnx.Rngs(0))


def with_padding(x: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """The same texts with other padding, longer where `padding` is."""
    result = padding.copy()
    result[:, :5][MASK] = x[MASK]
    return result


@pytest.mark.parametrize(("encoder", "pooler"), PAIRS)
def test_every_pair(encoder, pooler):
    """Finite gradients with an empty text; neither padding nor the neighbours in the batch change a result."""
    graph, parameters, rest = nnx.split(model_of(encoder, pooler), nnx.Param, ...)

    @jax.jit
    def logits_and_gradients(parameters, tokens, mask):
        def total(parameters):
            logits, _ = nnx.merge(graph, parameters, rest)(tokens, mask)
            return jnp.square(logits).sum(), logits

        gradients, logits = jax.grad(total, has_aux=True)(parameters)
        return logits, gradients

    garbage = with_padding(TOKENS, np.random.default_rng(1).integers(0, VOCABULARY, (4, 5)))
    logits, gradients = logits_and_gradients(parameters, TOKENS, MASK)
    turned, same = logits_and_gradients(parameters, garbage[::-1].copy(), MASK[::-1].copy())
    np.testing.assert_allclose(turned[::-1], logits, rtol=1e-5, atol=1e-6)
    assert np.ptp(np.asarray(logits), axis=0).max() > 1e-3, "the model must tell texts apart"
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        assert np.isfinite(np.asarray(one)).all()
    # The first state of a recurrent encoder has nothing to recall.
    assert pooler == "first" or all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients) if leaf.ndim > 1)


@EACH_ENCODER
def test_states_do_not_see_appended_padding_or_neighbours(name):
    encoder = encoder_of(name)
    together = np.asarray(encoder(jnp.asarray(TOKENS), jnp.asarray(MASK)))
    longer = with_padding(TOKENS, np.random.default_rng(1).integers(0, VOCABULARY, (4, 8)))
    longer = np.asarray(encoder(jnp.asarray(longer), jnp.asarray(np.pad(MASK, ((0, 0), (0, 3))))))
    np.testing.assert_allclose(longer[:, :5][MASK], together[MASK], rtol=1e-5, atol=1e-6)
    assert np.isfinite(longer).all()
    alone = np.asarray(encoder(jnp.asarray(TOKENS[2:3, :3]), jnp.ones((1, 3), bool)))
    np.testing.assert_allclose(alone[0], together[2, :3], rtol=1e-5, atol=1e-6)


@EACH_ENCODER
def test_only_the_bag_is_blind_to_order(name):
    encoder, mask = encoder_of(name), jnp.ones((1, 5), bool)
    tokens = jnp.array([[2, 3, 4, 5, 6]])
    moved = np.asarray(encoder(tokens[:, ::-1], mask))[:, ::-1] - np.asarray(encoder(tokens, mask))
    assert (np.abs(moved).max() < 1e-6) == (name == "bag")


@EACH_POOLER
def test_pooling_ignores_appended_padding_and_neighbours(name):
    pooler = pooler_of(name)
    together, _ = pooler(jnp.asarray(STATES), jnp.asarray(MASK))
    longer = with_padding(STATES, np.full((4, 8, 8), np.nan, np.float32))
    longer, _ = pooler(jnp.asarray(longer), jnp.asarray(np.pad(MASK, ((0, 0), (0, 3)))))
    np.testing.assert_allclose(longer, together, rtol=1e-5, atol=1e-6)
    alone, _ = pooler(jnp.asarray(STATES[2:3, :3]), jnp.ones((1, 3), bool))
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-5, atol=1e-6)
    assert together.shape == (4, pooler.features)


@EACH_POOLER
def test_the_order_of_tokens_matters_to_first_and_last_only(name):
    pooler, mask = pooler_of(name), jnp.ones((4, 5), bool)
    difference = pooler(jnp.asarray(STATES), mask)[0] - pooler(jnp.asarray(STATES[:, ::-1]), mask)[0]
    assert (np.abs(np.asarray(difference)).max() < 1e-5) == (name not in ORDERED)


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


@EACH_POOLER
def test_a_text_without_words_pools_to_zero(name):
    pooled, shown = pooler_of(name)(jnp.ones((2, 3, 8)), jnp.zeros((2, 3), bool))
    assert not np.asarray(pooled).any()
    assert not np.asarray(shown.get("attention", 0)).any()


def by_hand(name: str, x: np.ndarray) -> np.ndarray:
    """The poolings without matrices, over one text [n D], from their formulas."""
    # The scale limit of the power means: h = exp(tanh x).
    power = lambda p: np.mean(np.exp(np.tanh(x)) ** p, axis=0) ** (1 / p)  # noqa: E731
    return {
        "mean": lambda: x.mean(axis=0),
        "max": lambda: x.max(axis=0),
        "sum_sqrt": lambda: x.sum(axis=0) / np.sqrt(len(x)),
        "first": lambda: x[0],
        "last": lambda: x[-1],
        "log_sum_exp": lambda: np.log(np.exp(x).mean(axis=0)),
        "soft_pool": lambda: (x * np.exp(x)).sum(axis=0) / np.exp(x).sum(axis=0),
        "power_mean": lambda: power(3),
        "power_means": lambda: np.concatenate(
            [np.exp(np.tanh(x)).min(axis=0), power(1), power(2), power(3), np.exp(np.tanh(x)).max(axis=0)]
        ),
    }[name]()


@pytest.mark.parametrize(
    "name", ["mean", "max", "sum_sqrt", "first", "last", "log_sum_exp", "soft_pool", "power_mean", "power_means"]
)
def test_pooling_by_hand(name):
    pooled, _ = pooler_of(name)(jnp.asarray(STATES), jnp.asarray(MASK))
    for row, length in enumerate(LENGTHS[:3]):
        expected = by_hand(name, STATES[row, :length].astype(float))
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "sharpness"), [("log_sum_exp", 1000.0), ("soft_pool", 1000.0)])
def test_sharp_pooling_is_the_maximum(name, sharpness):
    pooler = POOLERS[name](POOLERS[name].Options(sharpness=sharpness), 8, rngs=nnx.Rngs(0))
    pooled, _ = pooler(jnp.asarray(STATES * 100), jnp.asarray(MASK))
    np.testing.assert_allclose(pooled[0], 100 * STATES[0].max(axis=0), rtol=1e-4)


def test_dot_attention_and_simpool_by_hand():
    x = STATES[0].astype(float)
    dot, simpool = pooler_of("dot_attention"), pooler_of("simpool")
    weights = softmax(x @ np.asarray(dot.query[...]) / np.sqrt(8))
    np.testing.assert_allclose(dot(jnp.asarray(STATES), jnp.asarray(MASK))[0][0], weights @ x, rtol=1e-5, atol=1e-6)
    query, keys = x.mean(axis=0) @ np.asarray(simpool.query.kernel[...]), x @ np.asarray(simpool.key.kernel[...])
    weights = softmax(keys @ query / np.sqrt(8))
    expected = np.sqrt(weights @ np.exp(np.tanh(x)) ** 2)
    np.testing.assert_allclose(simpool(jnp.asarray(STATES), jnp.asarray(MASK))[0][0], expected, rtol=1e-5)


def test_latent_query_is_multi_head_attention():
    pooler = pooler_of("latent_query")
    pooled, shown = pooler(jnp.asarray(STATES), jnp.asarray(MASK))
    heads = [(layer(jnp.asarray(STATES[:1]))).reshape(1, 5, 4, 2) for layer in (pooler.key, pooler.value)]
    read = jax.nn.dot_product_attention(pooler.query[...][None, None], *heads)
    np.testing.assert_allclose(pooled[0], pooler.out(read.reshape(8)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shown["attention"].sum(axis=1)[:3], np.ones((3, 4)), rtol=1e-5)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum()


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
    _, shown = pooler(jnp.ones((4, 5, 8)), jnp.asarray(MASK))
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


def lstm_by_hand(inputs: np.ndarray, recurrent: np.ndarray) -> np.ndarray:
    """One direction over one text, a word at a time."""
    state = memory = np.zeros(len(recurrent))
    states = []
    for said in inputs:
        enter, forget, leave, new = np.split(said + state @ recurrent, 4)
        memory = memory / (1 + np.exp(-forget - 1)) + np.tanh(new) / (1 + np.exp(-enter))
        state = np.tanh(memory) / (1 + np.exp(-leave))
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("name", ["gru", "bigru", "lstm", "bilstm"])
def test_a_recurrent_encoder_reads_from_the_ends_of_the_text(name):
    encoder = encoder_of(name)
    if "gru" in name:
        encoder.bias[...] = jax.random.normal(jax.random.key(3), encoder.bias[...].shape)
    states = np.asarray(encoder(jnp.asarray(TOKENS), jnp.asarray(MASK)))
    for row, length in enumerate(LENGTHS[:3]):
        said = np.asarray(encoder.inputs(encoder.words(jnp.asarray(TOKENS[row : row + 1, :length]))), float)[0]
        for way, words in enumerate(np.split(said, encoder.directions, axis=1)):
            recurrent, turn = np.asarray(encoder.recurrent[way], float), slice(None, None, 1 - 2 * way)
            bias = (np.asarray(encoder.bias[way, 0], float),) if "gru" in name else ()
            expected = (gru_by_hand if bias else lstm_by_hand)(words[turn], recurrent, *bias)[turn]
            np.testing.assert_allclose(states[row, :length, 8 * way : 8 * way + 8], expected, rtol=1e-4, atol=1e-5)


def test_textcnn_with_max_is_the_model_of_kim():
    encoder = encoder_of("textcnn")
    pooled, _ = pooler_of("max", 24)(encoder(jnp.asarray(TOKENS), jnp.asarray(MASK)), jnp.asarray(MASK))
    words = np.asarray(encoder.words(jnp.asarray(TOKENS)), float)
    for row, length in enumerate(LENGTHS[:3]):
        expected = []
        for width, layer in zip((3, 4, 5), encoder.convolutions, strict=True):
            padded = np.pad(words[row, :length], (((width - 1) // 2, width // 2), (0, 0)))
            windows = np.stack([padded[at : at + width] for at in range(length)])
            responses = np.einsum("nwe,wef->nf", windows, np.asarray(layer.kernel[...], float))
            expected.append(np.maximum(responses, 0).max(axis=0))
        np.testing.assert_allclose(pooled[row], np.concatenate(expected), rtol=1e-4, atol=1e-6)


def test_a_filter_sees_the_words_around_it():
    encoder = encoder_of("cnn")
    tokens = jnp.array([[2, 3, 4, 5, 6]])
    mask = jnp.ones((1, 5), bool)
    changed = np.asarray(encoder(tokens, mask) - encoder(tokens.at[0, 0].set(9), mask)).any(axis=2)[0]
    np.testing.assert_array_equal(changed, [True, True, False, False, False])


@EACH_ENCODER
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
    assert shapes == {"states": (4, 5, 8), "pooled": (4, 8), "attention": (4, 5)}


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
