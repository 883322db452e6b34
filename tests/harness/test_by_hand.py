"""Poolers and encoders against a few lines of NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.poolers import POOLERS
from tests.harness.tiny import LENGTHS, MASK, STATES, TOKENS, encoder_of, pooler_of


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
        "power_mean": lambda: power(3) - 1,  # centred
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


def test_log_learned_norm_is_a_log_sum_exp_weighed_by_attention():
    """log r = (1/p) log sum_i a_i exp(p x_i) with a as attention pooling has it; p starts at 1."""
    pooler = pooler_of("log_learned_norm")
    pooled, shown = pooler(jnp.asarray(STATES), jnp.asarray(MASK))
    assert float(pooler.p) == pytest.approx(1.0)
    for row, length in enumerate(LENGTHS):
        x, a = STATES[row, :length].astype(float), np.asarray(shown["attention"][row, :length], float)
        expected = np.log(a @ np.exp(x)) if length else np.zeros(8)
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-4, atol=1e-6)
        if length:
            scores = np.asarray(pooler.scores(jnp.asarray(STATES[[row]]), jnp.asarray(MASK[[row]]))[0, :length], float)
            np.testing.assert_allclose(a, softmax(scores), rtol=1e-5)


def test_the_printed_formula_agrees_with_its_reformulation():
    naive, ours = pooler_of("naive_norm"), pooler_of("learned_norm")
    ours.pool.scorer = naive.scorer
    texts = jnp.asarray(STATES), jnp.asarray(MASK)
    centred, _ = ours(*texts)
    np.testing.assert_allclose(centred, naive(*texts)[0], rtol=1e-4, atol=1e-6)
    naive.centre = False
    expected, _ = naive(*texts)
    np.testing.assert_allclose(centred, np.where(LENGTHS[:, None] > 0, expected - 1, 0), rtol=1e-4, atol=1e-6)


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


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["gru", "bigru", "lstm", "bilstm"])
def test_a_recurrent_encoder_reads_from_the_ends_of_the_text(name):
    encoder = encoder_of(name)
    if "gru" in name:
        encoder.bias[...] = jax.random.normal(jax.random.key(3), encoder.bias[...].shape)
    states = np.asarray(encoder(jnp.asarray(TOKENS), jnp.asarray(MASK))[0])
    for row, length in enumerate(LENGTHS[:3]):
        said = np.asarray(encoder.inputs(encoder.words(jnp.asarray(TOKENS[row : row + 1, :length]))), float)[0]
        for way, words in enumerate(np.split(said, encoder.directions, axis=1)):
            recurrent, turn = np.asarray(encoder.recurrent[way], float), slice(None, None, 1 - 2 * way)
            bias = (np.asarray(encoder.bias[way, 0], float),) if "gru" in name else ()
            expected = (gru_by_hand if bias else lstm_by_hand)(words[turn], recurrent, *bias)[turn]
            np.testing.assert_allclose(states[row, :length, 8 * way : 8 * way + 8], expected, rtol=1e-4, atol=1e-5)


def test_textcnn_with_max_is_the_model_of_kim():
    encoder = encoder_of("textcnn")
    pooled, _ = pooler_of("max", 24)(*encoder(jnp.asarray(TOKENS), jnp.asarray(MASK)))
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
    changed = np.asarray(encoder(tokens, mask)[0] - encoder(tokens.at[0, 0].set(9), mask)[0]).any(axis=2)[0]
    np.testing.assert_array_equal(changed, [True, True, False, False, False])


def test_the_gradient_of_the_maximum_goes_to_the_first_of_the_largest_states():
    """Two real words tie; a padded word is larger; the second text has no words."""
    pool = POOLERS["max"](POOLERS["max"].Options(), 1, rngs=nnx.Rngs(0))
    states = jnp.asarray([[[1.0], [3.0], [3.0], [9.0]], [[5.0], [6.0], [7.0], [8.0]]])
    mask = jnp.asarray([[True, True, True, False], [False] * 4])
    pooled, pull = jax.vjp(lambda x: pool(x, mask)[0], states)
    np.testing.assert_array_equal(pooled, [[3.0], [0.0]])
    np.testing.assert_array_equal(pull(jnp.asarray([[2.5], [4.0]]))[0][..., 0], [[0, 2.5, 0, 0], [0, 0, 0, 0]])
