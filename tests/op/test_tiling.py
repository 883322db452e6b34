"""How the kernels cut rows into blocks, and which tokens they fetch: pure functions of sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lnpool._pallas import tiling


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


# --- packed texts ---------------------------------------------------------------------------------------------------

TEXTS = {
    "mixed": [5, 0, 40, 1, 17, 0, 130],
    "starts at a block": [32, 32, 0, 64, 3],
    "one": [100],
    "empty at the end": [64, 0, 0],
    "many short": [3] * 40,
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("before", [0, 7], ids=["", "tokens_of_no_text"])
@pytest.mark.parametrize("lengths", TEXTS.values(), ids=TEXTS)
def test_steps_of_packed_texts(lengths, before):
    """Every token is in one step, of its own block and its own text; blocks and texts follow one another."""
    size, tokens = 32, before + sum(lengths) + before
    starts = before + np.cumsum([0, *lengths])
    bounds, texts, firsts = (
        np.asarray(x)[0] for x in tiling.steps(jnp.asarray(starts[None, :-1], jnp.int32), tokens, size)
    )
    assert texts.size == -(-tokens // size) + len(lengths)
    assert bounds[0] == 0
    assert bounds[-1] == tokens
    assert (np.diff(bounds) >= 0).all()
    assert (np.diff(texts) >= 0).all()
    assert set(texts) == set(range(len(lengths)))
    blocks = np.minimum(bounds[:-1], tokens - 1) // size
    assert set(blocks) == set(range(-(-tokens // size)))
    for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
        assert start == stop or (stop - 1) // size == blocks[k]
        own = np.arange(max(start, starts[0]), min(stop, starts[-1]))
        assert (np.searchsorted(starts, own, side="right") - 1 == texts[k]).all()
    assert firsts[-1] == texts.size
    np.testing.assert_array_equal(texts[firsts[:-1]], range(len(lengths)))
    np.testing.assert_array_equal(bounds[firsts[:-1]], starts[:-1])
    np.testing.assert_array_equal(texts[firsts[1:-1] - 1], range(len(lengths) - 1))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("itemsize", [4, 2], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("tokens", "features"), [(512, 300), (512, 768), (2048, 512)])
def test_packed_texts_are_read_once(tokens, features, itemsize):
    """A quarter of the tokens of padded rows: a TPU fetches a block again where it changes, a GPU reads each span."""
    lengths = np.linspace(0, tokens // 2, 64).astype(int)
    starts = jnp.asarray(np.cumsum(lengths) - lengths, jnp.int32)[None]
    total, padded = int(lengths.sum()), lengths.size * tokens
    assert total <= 0.25 * padded
    tiles = tiling.tile(total, features, itemsize, ragged=False)
    blocks = np.minimum(np.asarray(tiling.steps(starts, total, tiles.tokens).bounds)[0, :-1], total - 1) // tiles.tokens
    fetched = 1 + np.count_nonzero(np.diff(blocks))
    assert fetched == tiles.token_blocks
    assert fetched * tiles.tokens <= 0.35 * padded
    cut = tiling.columns(1, total, 1, features)
    for size in (cut.split_tokens, cut.tile_tokens):
        assert np.diff(np.asarray(tiling.steps(starts, total, size).bounds)).sum() == total <= 0.35 * padded


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
