"""Packed texts through the Pallas kernels, interpreted: as if each text were alone, padding and repeats, transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

import lnpool
from lnpool._pallas import compat, tiling
from tests.op.running import float64, on_host, random_cotangent
from tests.op.test_kernels import BOTH, KERNEL, equations, interpreted
from tests.op.test_packed import LENGTHS, D, check, inputs, packed, text_by_text
from tests.op.tolerances import CONFORMANCE, assert_agrees

F32 = CONFORMANCE[jnp.dtype("float32")]
CASES = {
    "mixed": ("mixed", "linear", 2.5, {}),
    "feature": ("mixed", "bounded", [1.5, 1.0, 2.0, 3.0, 8.0, 5.0], {}),
    "fixed": ("all in one", "tanh", 1.7, {}),
    # more features than a block, and blocks shared by texts whose gradients are rounded
    "wide": ("sentences", "linear", [1.0, 2, 3, 4, 5], {"heads": (5,), "features": 640, "dtype": "bfloat16"}),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """On a TPU, blocks of 32 tokens: texts share them and span them. A GPU splits such short rows as it is."""

    def cut(tokens, features, itemsize, ragged, tile=tiling.tile):
        monkeypatch.setattr(tiling, "_BLOCK_BYTES", 32 * itemsize * (features if features % 128 else 128))
        return tile(tokens, features, itemsize, ragged)

    monkeypatch.setattr(tiling, "tile", cut)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.sampled(8)
@BOTH
@pytest.mark.parametrize("name", CASES)
def test_every_text_is_pooled_as_if_alone(name, platform):
    lengths, form, p, options = CASES[name]
    with interpreted(platform):
        check(LENGTHS[lengths], form, p, implementation="pallas", **options)


def run_on(ids, count, mask, cotangent):
    """Compiled (ids, states, scores) -> (r, dstates, dscores, dp), and how often it was traced."""
    traces = []

    @jax.jit
    def run(ids, states, scores):
        traces.append(1)
        p = jnp.float32(2.5)
        return packed(ids, count, states, scores, p, cotangent, mask=mask, implementation="pallas")

    return run, traces


@pytest.mark.slow
@BOTH
def test_repeats_bit_for_bit_and_ignores_padding_and_tokens_of_no_text(platform):
    (states, scores), ids = inputs([4, 60, 30, 6])
    ids = np.where(ids == 3, 7, ids) - (np.arange(100) < 2)  # two tokens of text -1, six of text 7; text 3 is empty
    mask = np.arange(100) % 3 > 0
    lost = ~mask | (ids < 0) | (ids > 3)
    cotangent = random_cotangent((4, D))
    run, traces = run_on(ids, 4, jnp.asarray(mask), cotangent)
    with interpreted(platform):
        found = equations(jax.make_jaxpr(run)(jnp.asarray(ids), states, scores).jaxpr)
        assert sum(eqn.primitive.name == KERNEL for eqn in found) == {"tpu": 2, "gpu": 3}[platform]
        traces.clear()
        first, second = (run(jnp.asarray(ids), states, scores) for _ in range(2))
        poisoned = run(jnp.asarray(ids), jnp.where(lost[:, None], jnp.nan, states), jnp.where(lost, jnp.inf, scores))
        other_ids = np.sort(ids[::-1] // 2)
        other = run(jnp.asarray(other_ids), states, scores)
    assert len(traces) <= 1
    for x, y, z in zip(first, second, poisoned, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)
    assert not np.asarray(first[0])[3].any()
    assert not np.asarray(first[1])[lost].any()
    assert np.asarray(first[1])[~lost].all()
    with float64():
        for got, of in ((first, np.where(lost, -1, ids)), (other, np.where(mask, other_ids, -1))):
            want = text_by_text(of, 4, states, scores, 2.5, cotangent, mask=mask)
            for x, y in zip(on_host(got), want, strict=True):
                assert_agrees(x, y, F32)


@pytest.mark.slow
def test_vmap_makes_longer_rows_of_texts():
    """Not one kernel launch more."""
    lengths = ([20, 0, 33], [1, 50, 2])
    both = [inputs(n, seed=seed) for seed, n in enumerate(lengths)]
    states, scores = (jnp.stack(x) for x in zip(*(x for x, _ in both), strict=True))
    ids, cotangent = jnp.stack([jnp.asarray(x) for _, x in both]), random_cotangent((3, D))
    run, _ = run_on(ids, 3, None, cotangent)
    with interpreted("tpu"):
        found = equations(jax.make_jaxpr(jax.vmap(run))(ids, states, scores).jaxpr)
        assert sum(eqn.primitive.name == KERNEL for eqn in found) == 2
        got = on_host(jax.vmap(run)(ids, states, scores))
    with float64():
        for i in range(2):
            want = text_by_text(np.asarray(ids[i]), 3, states[i], scores[i], 2.5, cotangent)
            for x, y in zip(got, want, strict=True):
                assert_agrees(x[i], y, F32)


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="jax 0.7 cannot trace its TPU interpreter under lax.cond")
def test_no_race_and_no_uninitialised_memory():
    (states, scores), ids = inputs([10, 0, 40])
    cotangent = random_cotangent((3, D))
    run, _ = run_on(ids, 3, None, cotangent)
    with compat.target("tpu", pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")):
        got = on_host(run(jnp.asarray(ids), states, scores))
    with float64():
        for x, y in zip(got, text_by_text(ids, 3, states, scores, 2.5, cotangent), strict=True):
            assert_agrees(x, y, F32)


def test_inputs_that_no_kernel_takes_are_refused():
    states, ids = jax.ShapeDtypeStruct((10**5, 128), np.float32), np.zeros(10**5, np.int32)

    def pool(states, **options):
        return lnpool.pool_packed(states, segment_ids=ids, implementation="pallas", **options)

    with interpreted("tpu"), pytest.raises(NotImplementedError, match="at most 100000 packed texts and blocks"):
        jax.eval_shape(lambda states: pool(states, num_segments=10**5), states)
