"""The loops over blocks that a CPU runs for large batches, here for small ones, with blocks of three tokens."""

import jax
import jax.numpy as jnp
import pytest

from lnpool._xla import cpu_blocks
from tests.op import test_conformance, test_packed
from tests.op.cases import CASES

NAMES = (
    "odd_tokens",
    "mask_nan_heads",
    "p_per_feature_with_heads",
    "log_masked",
    "bounded",
    "bounded_masked",
    "bounded_p_head",
    "bounded_p_feature_fixed_attention",
    "bounded_no_scores",
    "bounded_one_token",
    "limit_tanh",
    "limit_tanh_p_feature",
    "limit_tanh_fixed_attention",
    "bfloat16_tanh",
    "float64_bounded",
)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(cpu_blocks, "_MIN_SIZE", 0)
    monkeypatch.setattr(cpu_blocks, "_block_tokens", lambda tokens, intermediates: min(3, tokens.scores.shape[1]))
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.sampled(15)
@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def test_blocks_against_reference(case, small_blocks):
    test_conformance.test_against_reference(case, "xla")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "p", "options"),
    [
        ("linear", 0.0, {}),
        ("bounded", [1.5, 2.0], {"heads": (2,), "features": 8}),
        ("bounded", test_packed.EXPONENTS["per feature"], {}),
        ("tanh", 2.5, {"dtype": "bfloat16"}),
    ],
    ids=["linear", "heads", "per feature", "bfloat16"],
)
def test_packed_texts_some_features_at_a_time(form, p, options, small_blocks):
    test_packed.check(test_packed.LENGTHS["mixed"], form, p, **options)


@pytest.mark.parametrize(
    ("shape", "dtype", "intermediates", "size"),
    [
        ((64, 256, 300), "float32", 1, 6),
        ((64, 256, 300), "float32", 2, 3),
        ((64, 256, 300), "bfloat16", 1, 6),
        ((1, 4096, 512), "float32", 1, 256),
        ((32, 2048, 512), "float32", 1, 32),
        ((4, 7, 100000), "float32", 1, 1),
        ((8, 20, 32), "float32", 1, None),
    ],
    ids=str,
)
def test_size_of_a_block(shape, dtype, intermediates, size):
    scores = jnp.zeros((*shape[:2], 1))
    block = cpu_blocks.Block(jax.ShapeDtypeStruct(shape, dtype), scores, None, None)
    assert cpu_blocks._block_tokens(block, intermediates) == size
