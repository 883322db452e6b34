"""How a kernel cuts its input into blocks, and which of them it fetches: pure functions of sizes."""

import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

SLOTS = 8  # sublanes of a vector register: rows of a block that are summed apart
LANES = 128
CHUNK = 32  # tokens of one step of the inner loop: one rescale of the running sums for every 4 tokens of a slot
_BLOCK_BYTES = 2**20  # of the states; two are in flight, and the backward pass writes as many
_MAX_BLOCK_FEATURES = 512  # 4 registers a row: more would spill the running sums
_MIN_RAGGED_TOKENS = 64  # a smaller block costs more in starting its copy than in what it skips
_RAGGED_BLOCKS = 16  # a masked row is cut so fine that half a block of padding is little

Index = TypeVar("Index", int, Array)


class Tiling(NamedTuple):
    """Sizes of the blocks and how many there are of them."""

    tokens: int  # of a block
    chunk: int  # tokens of one step, divides ``tokens``
    features: int  # of a block
    token_blocks: int
    feature_blocks: int


def tile(tokens: int, features: int, itemsize: int, ragged: bool) -> Tiling | None:
    """The blocks for one row of states [T D]; None where not even the smallest block fits into memory."""
    width = _block_features(features)
    granule = SLOTS * 4 // itemsize  # rows of one tile in memory: 8 of float32, 16 of bfloat16
    chunk = min(CHUNK, round_up(tokens, granule))
    most = _BLOCK_BYTES // (width * itemsize) // chunk * chunk
    if most == 0:
        return None
    wanted = max(math.ceil(tokens / _RAGGED_BLOCKS), _MIN_RAGGED_TOKENS) if ragged else tokens
    size = min(most, round_up(wanted, chunk), round_up(tokens, chunk))
    return Tiling(size, chunk, width, math.ceil(tokens / size), features // width)


def _block_features(features: int) -> int:
    """The widest block of whole lanes that divides the features; all of them where none does."""
    if features % LANES:
        return features
    units = features // LANES
    return LANES * max(k for k in range(1, _MAX_BLOCK_FEATURES // LANES + 1) if units % k == 0)


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is at least ``size``."""
    return -(-size // multiple) * multiple


def active_blocks(length: Index, size: int) -> Index:
    """How many token blocks of a row hold a real token."""
    return (length + (size - 1)) // size


def fetched_block(block: Index, length: Index, size: int) -> Index:
    """The token block in memory at grid step ``block``: the last real one for every later step.

    The pipeline fetches nothing while the index stays the same, so the padding behind the last real token is not read.
    """
    last = active_blocks(length, size) - 1
    if isinstance(last, int):
        return min(block, max(last, 0))
    return jnp.minimum(block, jnp.maximum(last, 0))


def fetched_bytes(lengths: list[int], tokens: int, features: int, itemsize: int, ragged: bool) -> int:
    """Bytes of states that a pass over rows of these lengths fetches: blocks whose index changes, cut at the array."""
    tiling = tile(tokens, features, itemsize, ragged)
    if tiling is None:
        return 0
    total, before = 0, None
    for row, length in enumerate(lengths):
        for feature_block in range(tiling.feature_blocks):
            for step in range(tiling.token_blocks):
                block = fetched_block(step, length, tiling.tokens)
                if before != (row, feature_block, block):
                    rows = min(tiling.tokens, tokens - block * tiling.tokens)
                    total += rows * tiling.features * itemsize
                before = (row, feature_block, block)
    return total


# --- packed texts ---------------------------------------------------------------------------------------------------


class Steps(NamedTuple):
    """Packed tokens, cut at every multiple of a size and where a text starts. B rows of S texts, K steps."""

    bounds: Array  # [B K+1] the first token of each step, and the end
    texts: Array  # [B K]
    firsts: Array  # [B S+1] the step at which each text starts, and the end


def steps(starts: Array, tokens: int, size: int) -> Steps:
    """The steps for N ``tokens`` whose texts start at ``starts`` [B S], sorted: K = ceil(N/size) + S.

    Every token lies in one step. Blocks of ``size`` tokens follow one another, and so do texts; each has a step, if
    only an empty one. Tokens before the first text go with it: what they hold is padding.
    """
    batch, count = starts.shape
    blocks = -(-tokens // size)
    # Where a block and a text start together, the block is first.
    firsts = jnp.arange(count, dtype=jnp.int32)[None] + jnp.minimum(starts // size + 1, blocks)
    step = jnp.arange(blocks + count, dtype=jnp.int32)
    started = jax.vmap(lambda row: jnp.searchsorted(row, step, side="right"))(firsts).astype(jnp.int32)
    texts = jnp.maximum(started - 1, 0)
    bounds = jnp.where(started > 0, jnp.take_along_axis(starts, texts, axis=1), 0)
    bounds = jnp.maximum(bounds, (step[None] - started) * size)

    def ended(x: Array, end: int) -> Array:
        return jnp.concatenate([x, jnp.full((batch, 1), end, jnp.int32)], axis=1)

    return Steps(ended(bounds, tokens), texts, ended(firsts, blocks + count))


# --- GPU ------------------------------------------------------------------------------------------------------------

UNROLL = 8  # tokens whose loads are in flight together, and which share one rescale of the running sums
_PROGRAMS = 4 * 132  # that fill the multiprocessors of an H100 four times
_MIN_SPLIT_TOKENS = 64  # a shorter part of a row costs more in merging than it gains
_TILE = 2048  # elements of a block of the backward pass: 16 for each of 128 threads
_MAX_COLUMNS = 512


class Columns(NamedTuple):
    """How GPU programs share the features of a head and the tokens of a row. Blocks are powers of 2 wide and high."""

    features: int  # of a block, the last one masked
    blocks: int  # of a head
    splits: int  # of a row, forward
    split_tokens: int
    tile_tokens: int  # of a block, backward


def columns(batch: int, tokens: int, heads: int, size: int) -> Columns:
    """The blocks for states [B T H K] with heads of ``size`` K: the width that wastes least, then the widest."""
    if size <= LANES:
        features = 1 << (size - 1).bit_length()
    else:
        widths = [LANES << k for k in range((_MAX_COLUMNS // LANES).bit_length())]
        features = min(widths, key=lambda width: (round_up(size, width), -width))
    blocks = -(-size // features)
    wanted = -(-_PROGRAMS // max(batch * heads * blocks, 1))
    splits = max(1, min(wanted, -(-tokens // _MIN_SPLIT_TOKENS)))
    split_tokens = round_up(-(-tokens // splits), UNROLL)
    tile_tokens = min(max(_TILE // features, 4), _MIN_SPLIT_TOKENS)
    return Columns(features, blocks, -(-tokens // split_tokens), split_tokens, tile_tokens)


def span(split: Index, length: Index, size: int) -> tuple[Index, Index]:
    """First token of a split, and how many it reads: none behind the last real token of the row."""
    start = split * size
    left = length - start
    return start, (min(max(left, 0), size) if isinstance(left, int) else jnp.clip(left, 0, size))
