"""How the kernels cut rows into blocks, and which tokens they fetch: pure functions of sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnpool._kernels import tiling


@pytest.mark.parametrize("itemsize", [4, 2], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("tokens", "features"), [(512, 300), (512, 768), (2048, 512), (32768, 256)])
def test_ragged_rows_read_little_padding(tokens, features, itemsize):
    lengths = np.linspace(0, tokens // 2, 256).astype(int)
    assert lengths.mean() <= 0.25 * tokens
    fetched = tiling.fetched_bytes(lengths.tolist(), tokens, features, itemsize, ragged=True)
    assert fetched <= 0.35 * lengths.size * tokens * features * itemsize


@pytest.mark.parametrize("tokens", [1, 7, 64, 65, 333, 2048])
@pytest.mark.parametrize("features", [1, 6, 128, 300, 640, 768, 1152, 4096])
@pytest.mark.parametrize("itemsize", [4, 2])
@pytest.mark.parametrize("ragged", [True, False])
def test_tiles_cover_the_states(tokens, features, itemsize, ragged):
    tiles = tiling.tile(tokens, features, itemsize, ragged)
    assert tiles.token_blocks * tiles.tokens >= tokens > (tiles.token_blocks - 1) * tiles.tokens
    assert tiles.feature_blocks * tiles.features == features
    assert tiles.features % tiling.LANES == 0 or tiles.feature_blocks == 1
    assert tiles.tokens % tiles.chunk == 0 == tiles.chunk % (32 // itemsize)
    dense = tiling.fetched_bytes([tokens] * 3, tokens, features, itemsize, ragged)
    assert dense == 3 * tokens * features * itemsize


def test_blocks_behind_the_last_token_are_not_fetched():
    blocks = [tiling.fetched_block(t, 130, 64) for t in range(8)]
    assert blocks == [0, 1, 2, 2, 2, 2, 2, 2]
    traced = jax.vmap(lambda t: tiling.fetched_block(t, jnp.int32(130), 64))(jnp.arange(8))
    assert traced.tolist() == blocks
    assert tiling.fetched_block(3, 0, 64) == 0


# --- GPU ------------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1, 1), (2, 7, 1, 6), (64, 333, 12, 64), (2, 5000, 1, 300), (1, 32768, 3, 4097), (1024, 512, 1, 768)]


@pytest.mark.parametrize(("batch", "tokens", "heads", "size"), SHAPES)
def test_gpu_blocks_cover_the_states(batch, tokens, heads, size):
    cut = tiling.columns(batch, tokens, heads, size)
    assert cut.blocks * cut.features >= size > (cut.blocks - 1) * cut.features
    assert cut.splits * cut.split_tokens >= tokens > (cut.splits - 1) * cut.split_tokens
    for power in (cut.features, cut.tile_tokens):
        assert power & (power - 1) == 0
    assert cut.split_tokens % tiling.UNROLL == 0
    assert cut.splits == 1 or cut.split_tokens >= tiling.UNROLL


def test_small_batches_are_split_over_tokens():
    assert tiling.columns(2, 32768, 1, 256).splits > 100
    assert tiling.columns(1024, 512, 1, 768).splits == 1


@pytest.mark.parametrize(("tokens", "features"), [(512, 300), (2048, 512), (32768, 256)])
def test_gpu_reads_no_token_behind_the_last(tokens, features):
    lengths = np.linspace(0, tokens // 2, 64).astype(int)
    cut = tiling.columns(lengths.size, tokens, 1, features)
    spans = [[tiling.span(s, int(n), cut.split_tokens) for s in range(cut.splits)] for n in lengths]
    read = sum(count for row in spans for _, count in row)
    assert read == lengths.sum() <= 0.35 * lengths.size * tokens
    for row, length in zip(spans, lengths, strict=True):
        assert [t for start, count in row for t in range(start, start + count)] == list(range(length))
    traced = jax.vmap(lambda n: tiling.span(1, n, cut.split_tokens)[1])(jnp.asarray(lengths, jnp.int32))
    assert traced.tolist() == [tiling.span(1, int(n), cut.split_tokens)[1] for n in lengths]
