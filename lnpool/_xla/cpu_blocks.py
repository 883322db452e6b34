"""From formulas of tokens to a whole batch: at once, or on a CPU by a loop over blocks that fit into cache.

The CPU backend of XLA stores an intermediate that two sums share, so that one pass over memory would become four or
more. In a block the intermediates stay in cache, whatever the formula and the version of XLA. GPU and TPU fuse the
whole batch instead, and a loop would only slow them down.

A block is some tokens of *all* rows. So rows may be cut over the devices of a mesh: the loop slices no axis that is,
and XLA's partitioner leaves every row where it lies.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat

Tree: TypeAlias = Any  # a pytree of arrays

_MIN_SIZE = 2**16  # elements of the batch below which a loop does not pay
_LEAST = 2**17  # elements of a block and its intermediates, below which a step of the loop does not pay
_MAX_SIZE = 2**19  # elements of a block that stay in cache
_BLOCKS = 48  # as many for each intermediate, unless that is less than _LEAST: together a few per cent of the states


class Block(NamedTuple):
    """Some tokens of every row: what a formula sees of them."""

    states: Array  # [B T *H K]
    scores: Array  # [B T *H 1]
    mask: Array | None  # [B T *1 1]
    owner: Array | None = None  # [B T] the text of every token, where packed tokens are not in rows
    moved: tuple[Array, ...] = ()  # tangents of states and scores


class Parts(NamedTuple):
    """What a formula computes of a block: results of each token, and terms of which to take the sum or the largest."""

    each: Tree = ()
    sums: Tree = ()
    maxima: Tree = ()


def over_tokens(
    compute: Callable[[Block], Parts],
    tokens: Block,
    source: Array | None = None,
    *,
    intermediates: int = 1,
    by_product: bool = False,
) -> Parts:
    """``compute`` of all tokens: results [B T ...], sums and maxima [B 1 ...] over the tokens of a row.

    ``source`` [B T] says where the states of a row lie among packed ones [1 N ...]. On a CPU a block has so many tokens
    that ``intermediates`` arrays of its size are small; ``by_product`` sums there by matrix products, which are faster
    than reductions of cheap terms.
    """

    def whole(tokens: Block, source: Array | None) -> Parts:
        states = tokens.states if source is None else tokens.states[0, source]
        each, sums, maxima = compute(tokens._replace(states=states))
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=1, keepdims=True), sums)
        return Parts(each, sums, jax.tree.map(lambda x: jnp.max(x, axis=1, keepdims=True), maxima))

    size = _block_tokens(tokens, intermediates)
    if size is None:
        return whole(tokens, source)
    in_blocks = functools.partial(_in_blocks, compute, size, by_product)
    return lax.platform_dependent(tokens, source, cpu=in_blocks, default=whole)


def _in_blocks(
    compute: Callable[[Block], Parts], size: int, by_product: bool, tokens: Block, source: Array | None
) -> Parts:
    rows, count = tokens.scores.shape[:2]

    def block(start: Array) -> Parts:
        # The starts of slices and updates are clamped alike, so the last block computes some tokens again.
        def bits(x: Array) -> Array:
            # The barrier keeps XLA from taking the bits of the whole array out of the loop, which is a copy.
            return _as_bits(lax.optimization_barrier((x, start))[0] if x.dtype.itemsize == 2 else x)

        def cut(x: Array) -> Array:
            return _from_bits(lax.dynamic_slice_in_dim(bits(x), start, size, axis=1), x.dtype)

        some: Block = jax.tree.map(cut, tokens if source is None else tokens._replace(states=tokens.scores))
        if source is not None:
            some = some._replace(states=_from_bits(bits(tokens.states)[0, cut(source)], tokens.states.dtype))
        each, sums, maxima = compute(some)
        is_new = None if count % size == 0 else jnp.minimum(start, count - size) + jnp.arange(size) >= start
        sums = jax.tree.map(functools.partial(_sum, is_new, by_product), sums)
        return Parts(each, sums, jax.tree.map(lambda x: jnp.max(x, axis=1, keepdims=True), maxima))

    def step(so_far: Parts, start: Array) -> tuple[Parts, None]:
        def write(whole: Array, part: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, _as_bits(part), start, axis=1)

        each, sums, maxima = block(start)
        return Parts(
            jax.tree.map(write, so_far.each, each),
            jax.tree.map(jnp.add, so_far.sums, sums),
            jax.tree.map(jnp.maximum, so_far.maxima, maxima),
        ), None

    like = jax.eval_shape(block, 0)
    before = Parts(
        jax.tree.map(lambda x: _compat.new(x, (rows, count, *x.shape[2:]), None, _bits(x.dtype)), like.each),
        jax.tree.map(lambda x: _compat.new(x, x.shape, 0), like.sums),
        jax.tree.map(lambda x: _compat.new(x, x.shape, -math.inf), like.maxima),
    )
    after, _ = lax.scan(step, before, jnp.arange(0, count, size))
    return after._replace(each=jax.tree.map(lambda x, of: _from_bits(x, of.dtype), after.each, like.each))


def _bits(dtype: Any) -> Any:
    return jnp.dtype(jnp.uint16) if dtype.itemsize == 2 else dtype


def _as_bits(x: Array) -> Array:
    """16-bit floats as integers: XLA's CPU backend has no slices of them and would convert the whole array first."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _from_bits(x: Array, dtype: Any) -> Array:
    return lax.bitcast_convert_type(x, dtype) if dtype.itemsize == 2 else x


def _sum(is_new: Array | None, by_product: bool, x: Array) -> Array:
    """Sum over the new tokens: [B T ...] -> [B 1 ...]."""
    rows, tokens, *rest = x.shape
    if by_product:
        flat = x.reshape(rows, tokens, -1)
        weights = jnp.ones_like(flat[..., 0])  # cut over devices as the rows are
        weights = weights if is_new is None else jnp.where(is_new, weights, 0)
        return jnp.einsum("bt,btk->bk", weights, flat, precision=lax.Precision.HIGHEST).reshape(rows, 1, *rest)
    if is_new is not None:
        x = jnp.where(is_new.reshape(-1, *(1,) * len(rest)), x, 0)
    return jnp.sum(x, axis=1, keepdims=True)


def _block_tokens(tokens: Block, intermediates: int) -> int | None:
    """Tokens of a block; None for a batch that is small, of unknown size, or cut over devices token by token."""
    shape = (*tokens.scores.shape[:2], *tokens.states.shape[2:])
    if not all(isinstance(size, int) for size in shape) or math.prod(shape) < _MIN_SIZE:
        return None
    if _compat.is_cut(tokens.scores, 1):
        return None
    rows, count, *features = shape
    in_float32 = math.prod(shape) * min(tokens.states.dtype.itemsize, 4) // 4  # what is computed of a block is
    most = min(max(in_float32 // _BLOCKS, _LEAST) // intermediates, _MAX_SIZE)
    size = max(1, most // max(rows * math.prod(features), 1))
    return math.ceil(count / math.ceil(count / size))
