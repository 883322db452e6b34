"""Attention functions against dense attention under a boolean mask, and the memory of their compiled programs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import attention as benchmark
from benchmarks.attention import temporaries
from benchmarks.programs import BOTH, FORWARD
from experiments.base.errors import UsageError
from experiments.data.corpus import TextBatch
from experiments.encoders.transformer import Transformer
from experiments.layers.attention import atrous, full, local, sparse
from experiments.layers.words import WordEmbedding
from experiments.run import build
from experiments.run.config import parse_args
from tests.harness.tiny import VOCABULARY, tiny

B, N, H = 4, 2, 4
NAMES = ("full", "local", "atrous", "sparse")
LENGTHS = (1, 7, 13, 16)
SPANS = (1, 2, 5, 40)


def form_of(name: str, span: int, causal: bool):
    """A form of attention; the window of the sparse form is not its rate, so that they are told apart."""
    window, rate = {"local": span, "sparse": max(1, span // 2)}.get(name), span
    return {
        "full": lambda *a: full(*a, causal=causal),
        "local": lambda *a: local(*a, window=window, causal=causal),
        "atrous": lambda *a: atrous(*a, rate=rate, causal=causal),
        "sparse": lambda *a: sparse(*a, window=window, rate=rate, causal=causal),
    }[name]


def pattern(name: str, span: int, causal: bool, length: int) -> np.ndarray:
    """Which token i reads which token j [T T], pair by pair."""
    window = span if name == "local" else max(1, span // 2)
    reads = np.zeros((length, length), bool)
    for i in range(length):
        for j in range(length):
            near, step = abs(i - j) <= window, (i - j) % span == 0
            reads[i, j] = {"full": True, "local": near, "atrous": step, "sparse": near or step}[name]
            reads[i, j] &= j <= i or not causal
    return reads


def masks_of(length: int) -> np.ndarray:
    """No padding, padding at the end, a mask with holes, an empty text."""
    holes = np.random.default_rng(length).random(length) < 0.5
    every = np.ones(length, bool)
    return np.stack([every, np.arange(length) < (length + 1) // 2, holes, ~every])


def dense(reads, q, k, v, cotangent):
    """Attention over all pairs that are read, and its gradients by the formulas, in NumPy and float64."""
    q, k, v, cotangent = (np.asarray(each, np.float64) for each in (q, k, v, cotangent))
    scores = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(H)
    powers = np.where(reads[:, None], np.exp(scores), 0)
    weights = powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    by_weight = np.einsum("btnh,bsnh->bnts", cotangent, v)
    by_score = weights * (by_weight - (weights * by_weight).sum(axis=-1, keepdims=True)) / np.sqrt(H)
    return (
        np.einsum("bnts,bsnh->btnh", weights, v),
        np.einsum("bnts,bsnh->btnh", by_score, k),
        np.einsum("bnts,btnh->bsnh", by_score, q),
        np.einsum("bnts,btnh->bsnh", weights, cotangent),
    )


def drawn(length: int, dtype) -> list[jax.Array]:
    """Queries, keys, values and a cotangent."""
    rng = np.random.default_rng(length)
    return [jnp.asarray(rng.normal(size=(B, length, N, H)) * scale, dtype) for scale in (2, 2, 1, 1)]


def value_and_gradients(attend, q, k, v, cotangent):
    value, pullback = jax.vjp(attend, q, k, v)
    return value, *pullback(cotangent)


CASES = [
    (name, span, causal, length)
    for name in NAMES
    for span in (SPANS if name != "full" else SPANS[:1])
    for causal in (False, True)
    for length in LENGTHS
]


@pytest.mark.sampled(29)
@pytest.mark.parametrize(("name", "span", "causal", "length"), CASES)
def test_value_and_gradients_are_those_of_dense_attention(name, span, causal, length):
    mask, form = masks_of(length), form_of(name, span, causal)
    reads = pattern(name, span, causal, length) & mask[:, None]
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            arrays = drawn(length, dtype)
            found = jax.jit(lambda *a: value_and_gradients(lambda *b: form(*b, jnp.asarray(mask)), *a))(*arrays)
        # jax.nn.dot_product_attention, which is `full`, takes the softmax in float32 always.
        tolerance = 1e-12 if dtype == jnp.float64 and name != "full" else 1e-5
        for one, other in zip(found, dense(reads, *arrays), strict=True):
            assert one.dtype == dtype
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
            assert not np.asarray(one)[3].any(), "an empty text"


@pytest.mark.sampled(29)
@pytest.mark.parametrize(("name", "span", "causal", "length"), CASES)
def test_the_keys_that_are_read_are_those_of_the_mask(name, span, causal, length):
    """What is read is linear in the values: its Jacobian is the weights, 1 / keys each where the scores are equal."""
    mask, form = masks_of(length), form_of(name, span, causal)
    reads = pattern(name, span, causal, length) & mask[:, None]
    q, k, v, _ = drawn(length, jnp.float32)
    jacobian = jax.jit(jax.jacrev(lambda v, q: form(q, k, v, jnp.asarray(mask))[:, :, 0, 0]))
    for queries in (q, 0 * q):
        weights = np.asarray(jacobian(v, queries))[..., 0, 0].copy()  # [B T] by [B T]
        own = np.einsum("bibj->bij", weights).copy()
        np.testing.assert_array_equal(own != 0, reads)
        np.testing.assert_allclose(own.sum(axis=-1), reads.any(axis=-1), rtol=1e-5)
        weights[np.arange(B), :, np.arange(B)] = 0
        assert not weights.any(), "no text reads another one"
    np.testing.assert_allclose(own, reads / np.maximum(reads.sum(axis=-1, keepdims=True), 1), rtol=1e-6)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("length", [13, 1, 7, 16])
@pytest.mark.parametrize("causal", [True, False])
def test_rate_one_and_a_window_over_the_whole_text_are_full_attention(causal, length):
    q, k, v, _ = drawn(length, jnp.float32)
    forms = [
        full,
        partial(atrous, rate=1),
        partial(local, window=length),
        partial(sparse, window=1, rate=1),
        partial(sparse, window=length + 3, rate=5),
    ]
    mask = jnp.asarray(masks_of(length))
    expected, *found = jax.jit(lambda *a: [form(*a, mask, causal=causal) for form in forms])(q, k, v)
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)


def test_local_then_atrous_attention_reach_every_pair():
    """Two layers together, when the window is the rate less 1; a smaller one does not serve the ends of a text."""
    for length, rate in ((13, 4), (16, 5), (40, 8)):
        steps = pattern("atrous", rate, False, length).astype(int)
        assert (steps @ pattern("local", rate - 1, False, length) > 0).all()
        assert not (steps @ pattern("local", rate - 2, False, length) > 0).all()
    q, k, v, _ = drawn(13, jnp.float32)
    every = jnp.ones((B, 13), bool)

    def layers(v):
        return atrous(q, k, local(q, k, v, every, window=3), every, rate=4)[0, :, 0, 0]

    assert (np.asarray(jax.jit(jax.jacrev(layers))(v))[:, 0, :, 0, 0] != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse", "local", "atrous"])
def test_bfloat16_is_summed_in_float32(name):
    q, k, v, _ = drawn(16, jnp.bfloat16)
    mask = jnp.asarray(masks_of(16))
    form = jax.jit(form_of(name, 5, False))
    found = form(q, k, v, mask)
    assert found.dtype == jnp.bfloat16
    exact = form(*(each.astype(jnp.float32) for each in (q, k, v)), mask)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0.02, atol=0.02)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["sparse", "local", "atrous"])
def test_very_large_scores_do_not_overflow_and_nan_is_not_hidden(name):
    q, k, v, cotangent = drawn(13, jnp.float32)
    form, mask = form_of(name, 5, False), jnp.asarray(masks_of(13))
    run = jax.jit(lambda *a: value_and_gradients(lambda *b: form(*b, mask), *a))
    assert all(np.isfinite(np.asarray(each)).all() for each in run(1e4 * q, 1e4 * k, v, cotangent))
    assert np.isnan(np.asarray(run(q.at[0, 4].set(jnp.nan), k, v, cotangent)[0])[0, 4]).all()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("causal", [False, True])
def test_temporaries_fall_with_the_keys_that_are_read(causal, capsys):
    """At 4,096 tokens local and atrous attention need at most an eighth of the temporaries of full attention."""
    forms = {
        "full": full,
        "local": partial(local, window=16),
        "atrous": partial(atrous, rate=16),
        "sparse": partial(sparse, window=16, rate=16),
    }
    found = {name: temporaries(partial(form, causal=causal), (1, 4096, 2, 64)) for name, form in forms.items()}
    with capsys.disabled():
        for name, sizes in found.items():
            print(f"\n{name}{', causal' * causal}, 4096 tokens, bytes of temporaries: {sizes}", end="")
    dense = found.pop("full")
    assert dense[FORWARD] > 4 * 2 * 4096**2, "full attention holds the scores of all pairs"
    for name, sizes in found.items():
        assert all(8 * sizes[mode] <= dense[mode] for mode in (FORWARD, BOTH)), name


@pytest.mark.sampled(8)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["sparse", "local", "atrous", "full"])
def test_the_encoder_has_them(name, causal):
    """Real states depend neither on padding nor on other texts, on later words only where it is not causal."""
    options = dataclasses.replace(tiny(Transformer.Options()), attention=name, window=2, rate=3, causal=causal)
    encoder = Transformer(options, WordEmbedding(options, VOCABULARY, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    read = jax.jit(lambda tokens, mask: encoder(tokens, mask)[0])
    tokens = np.random.default_rng(0).integers(2, VOCABULARY, (3, 9))
    mask = np.arange(9) < np.array([[9], [4], [0]])
    states = np.asarray(read(tokens, mask))
    assert np.isfinite(states).all()
    garbage = np.where(mask, tokens, (tokens + 5) % VOCABULARY)
    np.testing.assert_allclose(read(garbage[::-1], mask[::-1])[::-1][mask], states[mask], rtol=1e-5, atol=1e-6)
    later = tokens.copy()
    later[0, 8] = (tokens[0, 8] + 1) % VOCABULARY
    moved = np.abs(np.asarray(read(later, mask)) - states)[0].max(axis=-1) > 1e-6
    assert moved[8]
    assert moved[:8].any() != causal
    assert encoder.causal == causal


@pytest.mark.slow
def test_a_language_model_takes_a_causal_transformer_and_no_other():
    arguments = ["--objective", "language_model", "--encoder", "transformer", "--encode.attention", "sparse"]
    with pytest.raises(
        UsageError, match=r"choose bag, mlp, gru, lstm or onlstm, or transformer with --encode\.causal\."
    ):
        build.objective(parse_args(arguments), {"words": VOCABULARY})
    model, _ = build.objective(parse_args([*arguments, "--encode.causal"]), {"words": VOCABULARY})
    tokens = jnp.asarray(np.random.default_rng(0).integers(2, VOCABULARY, (2, 9)))
    batch = TextBatch(tokens, tokens > 0, jnp.zeros(2), jnp.ones(2))
    losses = np.asarray(model(batch)["losses"])
    changed = np.asarray(model(batch._replace(tokens=tokens.at[:, 5].set(1)))["losses"])
    np.testing.assert_allclose(changed[:, :5], losses[:, :5], rtol=1e-5)
    assert (np.abs(changed - losses)[:, 6:] > 1e-6).any()


@pytest.mark.slow
def test_the_benchmark_prints_a_row_a_form(capsys):
    assert benchmark.main(["--tokens", "12", "--features", "4", "--spans", "2", "3", "--rounds", "2", "--causal"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["full", *["local"] * 2, *["atrous"] * 2, *["sparse"] * 2]
    assert {line.count("|") for line in (header, *rows)} == {12}
    assert [cell.strip() for cell in rows[0].split("|")[5:8:2]] == ["1.000", "1.000"]
    assert benchmark.main(["--spans", "0"]) == 2
    assert "must be 1 or more" in capsys.readouterr().err
