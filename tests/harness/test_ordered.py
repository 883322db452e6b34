"""Ordered neurons against the program of the paper's authors, a loop over single units, and an ordinary memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.encoders.ordered import OrderedLayer, OrderedNeurons, OrderedOptions, cumax
from experiments.encoders.recurrent import LSTM, RecurrentOptions
from experiments.layers.words import WordEmbedding
from experiments.run import build
from experiments.run.config import parse_args
from tests.harness import make_ordered
from tests.harness.tiny import VOCABULARY, batch_of

OPTIONS = OrderedOptions(features=make_ordered.FEATURES, layers=make_ordered.LAYERS, chunks=make_ordered.CHUNKS)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_unit(layer: OrderedLayer, vectors: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States and levels of one text: every unit for itself, in float64."""
    kernel, bias, recurrent = map(np.float64, (layer.inputs.kernel, layer.inputs.bias, layer.recurrent))
    H, C = len(recurrent), layer.chunks
    h, c, states, levels = np.zeros(H), np.zeros(H), [], []
    for x, keep in zip(vectors, real, strict=True):
        gates = x @ kernel + bias + h @ recurrent
        entering, forgetting = softmax(gates[:C]), softmax(gates[C : 2 * C])
        rest = gates[2 * C :].reshape(4, H)
        new_h, new_c = h.copy(), c.copy()
        for unit in range(H):
            k = unit * C // H
            kept = forgetting[: k + 1].sum()
            new = entering[k:].sum() if layer.variant == "symmetric" else entering[k + 1 :].sum()
            o, value, i, f = rest[:, unit]
            w = kept * new
            inside = sigmoid(f + 1) * c[unit] + sigmoid(i) * np.tanh(value)
            new_c[unit] = w * inside + (kept - w) * c[unit] + (new - w) * np.tanh(value)
            new_h[unit] = sigmoid(o) * np.tanh(new_c[unit])
        if keep:
            h, c = new_h, new_c
        states.append(h)
        levels.append(1 - np.mean([forgetting[: k + 1].sum() for k in range(C)]))
    return np.array(states), np.array(levels)


def layer_of(variant: str, chunks: int = 4, features: int = 5) -> OrderedLayer:
    options = dataclasses.replace(OPTIONS, variant=variant, chunks=chunks)
    layer = OrderedLayer(options, features, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    layer.inputs.kernel[...] = random.normal(size=layer.inputs.kernel.shape).astype(np.float32)
    layer.inputs.bias[...] = random.normal(size=layer.inputs.bias.shape).astype(np.float32)
    return layer


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(make_ordered.PATH))


def stack_of(golden) -> nnx.List:
    """Layers with the numbers of the authors' program, whose gates are in the same order."""
    C, H = OPTIONS.chunks, OPTIONS.features
    layers = []
    for at in range(OPTIONS.layers):
        layer = OrderedLayer(OPTIONS, golden[f"cells.{at}.ih.0.weight"].shape[1], rngs=nnx.Rngs(0))
        bias = golden[f"cells.{at}.ih.0.bias"] + golden[f"cells.{at}.hh.bias"]
        bias[2 * C + 3 * H :] -= 1  # ours begins with open forget gates
        layer.inputs.kernel[...] = np.float32(golden[f"cells.{at}.ih.0.weight"].T)
        layer.inputs.bias[...] = np.float32(bias)
        layer.recurrent[...] = np.float32(golden[f"cells.{at}.hh.weight"].T)
        layers.append(layer)
    return nnx.List(layers)


def test_states_distances_and_gradients_are_those_of_the_authors(golden):
    graph, parameters = nnx.split(stack_of(golden))
    vectors = jnp.asarray(golden["vectors"], jnp.float32).swapaxes(0, 1)

    @jax.jit
    def run(parameters, vectors):
        states, levels = vectors, []
        for layer in nnx.merge(graph, parameters):
            states, level = layer(states, jnp.ones(states.shape[:2], bool))
            levels.append(level)
        return states.swapaxes(0, 1), jnp.stack(levels).swapaxes(1, 2)

    (states, levels), pullback = jax.vjp(run, parameters, vectors)
    np.testing.assert_allclose(states, golden["states"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(levels, golden["distances"], rtol=1e-5, atol=1e-6)
    of_layers, of_vectors = pullback((jnp.float32(golden["of_states"]), jnp.float32(golden["of_distances"])))
    np.testing.assert_allclose(of_vectors.swapaxes(0, 1), golden["gradient/vectors"], rtol=1e-4, atol=1e-5)
    for at, layer in enumerate(nnx.merge(graph, of_layers)):
        of_cell = f"gradient/cells.{at}"
        np.testing.assert_allclose(layer.inputs.kernel, golden[f"{of_cell}.ih.0.weight"].T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.inputs.bias, golden[f"{of_cell}.ih.0.bias"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.recurrent, golden[f"{of_cell}.hh.weight"].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "symmetric"])
def test_every_unit_by_hand_with_padding_in_the_middle(variant):
    layer = layer_of(variant)
    random = np.random.default_rng(1)
    vectors = random.normal(size=(2, 7, 5)).astype(np.float32)
    real = np.array([[1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0, 0]], bool)
    states, levels = layer(jnp.asarray(vectors), jnp.asarray(real))
    for row in range(2):
        expected = by_unit(layer, np.float64(vectors[row]), real[row])
        np.testing.assert_allclose(states[row], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(levels[row], expected[1], rtol=1e-5, atol=1e-6)


def test_cumax_and_the_level():
    x = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32) * 4
    up, down = np.asarray(cumax(jnp.asarray(x))), np.asarray(cumax(jnp.asarray(x), reverse=True))
    shares = np.array([softmax(np.float64(row)) for row in x])
    np.testing.assert_allclose(up, [[row[: k + 1].sum() for k in range(6)] for row in shares], rtol=1e-5)
    np.testing.assert_allclose(down, [[row[k:].sum() for k in range(6)] for row in shares], rtol=1e-5)
    # The expected number of the chunk, counted from 1, is n (1 - mean f~) + 1.
    np.testing.assert_allclose(shares @ np.arange(1, 7), 6 * (1 - up.mean(axis=1)) + 1, rtol=1e-5)


@pytest.mark.parametrize(("forget", "enter"), [(1, 3), (3, 1)])
def test_master_gates_that_are_one_hot_update_by_pieces(forget, enter):
    """With d_f <= d_i chunks between are an ordinary memory; with d_f > d_i those between are emptied."""
    layer, C, H = layer_of("symmetric"), 4, 12
    random = np.random.default_rng(3)
    gates = random.normal(size=(1, 2 * C + 4 * H)).astype(np.float32)
    gates[:, : 2 * C] = 0
    gates[0, enter], gates[0, C + forget] = 200, 200
    memory = random.normal(size=(1, C, H // C)).astype(np.float32)
    found = np.asarray(layer.cell(jnp.asarray(gates), jnp.asarray(memory))[1])[0]
    _, value, i, f = np.float64(gates[0, 2 * C :]).reshape(4, C, -1)
    old, new = np.float64(memory[0]), np.tanh(value)
    for k in range(C):
        kept, entered = k >= forget, k <= enter
        both = sigmoid(f[k] + 1) * old[k] + sigmoid(i[k]) * new[k]
        expected = both if kept and entered else kept * old[k] + entered * new[k]
        np.testing.assert_allclose(found[k], expected, rtol=1e-5, atol=1e-6)


def test_one_chunk_of_the_symmetric_form_is_a_long_short_term_memory():
    options = RecurrentOptions(features=6, embedding=5)
    words = WordEmbedding(options, 20, rngs=nnx.Rngs(1))
    lstm = LSTM(options, words, rngs=nnx.Rngs(2))
    shape = OrderedOptions(features=6, embedding=5, layers=1, chunks=1, variant="symmetric")
    ordered = OrderedNeurons(shape, words, rngs=nnx.Rngs(3))
    (layer,) = ordered.layers
    order = np.concatenate([np.arange(6) + 6 * gate for gate in (2, 3, 0, 1)])  # enter, forget, leave, new there
    layer.inputs.kernel[...] = layer.inputs.kernel[...].at[:, 2:].set(lstm.inputs.kernel[...][:, order])
    layer.inputs.bias[...] = layer.inputs.bias[...].at[2:].set(lstm.inputs.bias[...][order])
    layer.recurrent[...] = layer.recurrent[...].at[:, 2:].set(lstm.recurrent[...][0][:, order])
    tokens = jnp.asarray(np.random.default_rng(0).integers(2, 20, (3, 8)))
    mask = jnp.arange(8) < jnp.array([[8], [3], [0]])
    np.testing.assert_allclose(ordered(tokens, mask)[0], lstm(tokens, mask)[0], rtol=1e-5, atol=1e-6)


def test_nothing_enters_the_last_chunk_of_the_paper():
    for variant in ("paper", "symmetric"):
        vectors = np.random.default_rng(4).normal(size=(1, 40, 5)).astype(np.float32)
        states, _ = layer_of(variant)(jnp.asarray(vectors), jnp.ones((1, 40), bool))
        assert np.abs(np.asarray(states)[..., :9]).max() > 1e-3
        # 1 - cumax is 0 up to rounding.
        assert (np.abs(np.asarray(states)[..., 9:]).max() < 1e-5) == (variant == "paper")


def test_a_head_of_the_learned_norm_pools_a_chunk_with_its_own_exponent():
    line = "--encoder onlstm --encode.features 12 --encode.chunks 4 --encode.layers 1 --encode.embedding 6"
    config = parse_args(f"{line} --pool.per head --pool.heads 4".split())
    model, _ = build.objective(config, {"words": VOCABULARY, "classes": 4})
    batch = batch_of("onlstm")
    before = np.asarray(model(batch)["pooled"]).reshape(4, 4, 3)
    assert np.abs(before[:3, :3]).min() > 1e-6
    assert np.abs(before[:, 3]).max() < 1e-6, "nothing enters the last chunk, so its pooled states are neutral"
    model.pooler.pool.rho[...] = model.pooler.pool.rho[...].at[1].add(3.0)
    after = np.asarray(model(batch)["pooled"]).reshape(4, 4, 3)
    moved = np.abs(after - before).max(axis=2)
    assert moved[0, 1] > 1e-6
    assert not moved[:, [0, 2, 3]].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"chunks": 5}, "chunks 5 must divide the features 12"), ({"chunks": 1}, "nothing enters")],
)
def test_impossible_chunks(change, message):
    options = dataclasses.replace(OPTIONS, embedding=4, **change)
    words = WordEmbedding(options, 9, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        OrderedNeurons(options, words, rngs=nnx.Rngs(0))
