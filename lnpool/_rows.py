"""From formulas for one row of tokens to a batch: by vmap, or on a CPU by a loop over blocks that fit into cache.

The CPU backend of XLA stores an intermediate that two sums share, so that one pass over memory would become four or
more. In a block the intermediates stay in cache, whatever the formula and the version of XLA. GPU and TPU fuse the
whole batch instead, and a loop would only slow them down.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat
from lnpool._types import Inputs

Tree: TypeAlias = Any  # a pytree of arrays

_MIN_SIZE = 2**16  # elements of the batch below which a loop does not pay
_BLOCKS = 48  # for each intermediate of a block: together they are a few per cent of the states
_FEATURE_BLOCKS = 192  # the same for the exact form of whole rows
_MAX_SIZE = 2**19  # elements of a block that stay in cache
_MIN_WIDTH = 8  # features of a block: half a cache line of float32
_LINE = 16  # the same for packed texts, whose tokens are gathered: a cache line


def over_rows(compute: Callable[..., Tree], inputs: Inputs, *operands: Tree) -> Tree:
    """``compute(row, *operands of the row)`` for every row: [B ...] arrays in and out, p shared.

    The rows of packed texts meet in ``_weights.total``: the formulas see all of them, one axis more, and broadcast.
    """
    if inputs.pieces is not None:
        return compute(inputs._replace(p=inputs.p[None]), *operands)
    mapped: Tree = jax.tree.map(lambda _: 0, inputs)._replace(p=None)
    return jax.vmap(compute, in_axes=(mapped, *(0 for _ in operands)))(inputs, *operands)


def fused_over_rows(compute: Callable[..., Tree], inputs: Inputs, *operands: Tree) -> Tree:
    """``over_rows`` without a temporary of the size of the states.

    ``compute`` must not sum over other rows or devices, and must treat features independently; its results are as wide
    as the states.
    """
    rows, *_, width = inputs.states.shape
    if inputs.states.size < _MIN_SIZE:
        return over_rows(compute, inputs, *operands)
    blocks = _feature_blocks(rows, width, _MIN_WIDTH)
    size = width // blocks

    def cut(x: Array, row: Array, block: Array) -> Array:
        bits = lax.dynamic_index_in_dim(_as_bits(x), row, keepdims=False)
        if x.shape[-1] == width:
            bits = lax.dynamic_slice_in_dim(bits, block * size, size, axis=-1)
        return _from_bits(bits, x.dtype)

    def on_cpu(inputs: Inputs, *operands: Tree) -> Tree:
        def part(row: Array, block: Array) -> Tree:
            p, row_inputs = inputs.p, inputs._replace(p=(), pieces=None)  # type: ignore[arg-type]  # p has no rows
            if p.shape[-1] == width:
                p = lax.dynamic_slice_in_dim(p, block * size, size, axis=-1)
            some, *others = jax.tree.map(lambda x: cut(x, row, block), (row_inputs, *operands))
            return compute(some._replace(p=p), *others)

        def step(whole: Tree, index: Array) -> tuple[Tree, None]:
            row, block = index // blocks, index % blocks

            def write(whole: Array, part: Array) -> Array:
                return lax.dynamic_update_slice(whole, part[None], (row, *(0,) * (part.ndim - 1), block * size))

            return jax.tree.map(write, whole, part(row, block)), None

        varying = _as_varying_as(inputs, operands)
        whole = jax.tree.map(
            lambda x: varying(lax.empty((rows, *x.shape[:-1], width), x.dtype)), jax.eval_shape(part, 0, 0)
        )
        return lax.scan(step, whole, jnp.arange(rows * blocks))[0]

    def default(inputs: Inputs, *operands: Tree) -> Tree:
        return over_rows(compute, inputs, *operands)

    return lax.platform_dependent(inputs, *operands, cpu=on_cpu, default=default)


def over_features(compute: Callable[..., Tree], inputs: Inputs, *operands: Tree) -> Tree:
    """``compute(inputs, *operands)``; of packed texts on a CPU a few features at a time, without rows of all states.

    ``compute`` must treat features independently, but for results of width 1, which it sums over them.
    """
    width = inputs.states.shape[-1]
    blocks = _feature_blocks(1, width, _LINE)
    if inputs.pieces is None or inputs.states.size < _MIN_SIZE or blocks == 1:
        return compute(inputs, *operands)
    size = width // blocks

    def on_cpu(inputs: Inputs, *operands: Tree) -> Tree:
        def part(start: Array) -> Tree:
            def cut(x: Array) -> Array:
                if x.shape[-1] != width:
                    return x
                return _from_bits(lax.dynamic_slice_in_dim(_as_bits(x), start, size, axis=-1), x.dtype)

            some, *others = jax.tree.map(cut, (inputs._replace(pieces=None), *operands))
            return compute(some._replace(pieces=inputs.pieces), *others)

        def step(whole: Tree, start: Array) -> tuple[Tree, None]:
            def write(whole: Array, part: Array) -> Array:
                if part.shape[-1] == 1:
                    return whole + part
                return lax.dynamic_update_slice_in_dim(whole, _as_bits(part), start, axis=-1)

            return jax.tree.map(write, whole, part(start)), None

        def result(x: Any) -> Array:
            if x.shape[-1] == 1:
                return varying(jnp.zeros(x.shape, x.dtype))
            return varying(_as_bits(lax.empty((*x.shape[:-1], width), x.dtype)))

        varying = _as_varying_as(inputs, operands)
        like = jax.eval_shape(part, 0)
        whole, _ = lax.scan(step, jax.tree.map(result, like), jnp.arange(0, width, size))
        return jax.tree.map(lambda x, of: _from_bits(x, of.dtype) if of.shape[-1] > 1 else x, whole, like)

    return lax.platform_dependent(inputs, *operands, cpu=on_cpu, default=compute)


class OfTokens(NamedTuple):
    """What ``over_blocks`` computes: results of each token [T ...], and terms [T ...] to sum over tokens."""

    results: Tree = ()
    terms: Tree = ()


def over_blocks(compute: Callable[..., OfTokens], inputs: Inputs, *operands: Tree, intermediates: int = 6) -> OfTokens:
    """``compute(row, *operands of the row)`` where no token depends on another: [B T ...], and sums [B 1 ...].

    On a CPU a block of some rows and tokens at a time, whose ``intermediates`` (how many arrays of its size) stay in
    cache. Sums are matrix products there, which are faster than reductions.
    """

    def default(inputs: Inputs, *operands: Tree) -> OfTokens:
        results, terms = over_rows(compute, inputs, *operands)
        return OfTokens(results, jax.tree.map(lambda x: jnp.sum(x, axis=1, keepdims=True), terms))

    if inputs.states.size < _MIN_SIZE:
        return default(inputs, *operands)
    on_cpu = functools.partial(_block_by_block, compute, _block(inputs.states.shape, _BLOCKS * intermediates))
    return lax.platform_dependent(inputs, *operands, cpu=on_cpu, default=default)


def _block_by_block(
    compute: Callable[..., OfTokens], size: tuple[int, int], inputs: Inputs, *operands: Tree
) -> OfTokens:
    (some_rows, some_tokens), (rows, tokens, *_) = size, inputs.states.shape

    def block(row: Array, token: Array) -> OfTokens:
        # The starts of slices and updates are clamped alike, so the last blocks compute some rows and tokens again.
        def cut(x: Array) -> Array:
            x, dtype = _as_bits(x), x.dtype
            x = lax.dynamic_slice_in_dim(x, row, some_rows)
            x = lax.dynamic_slice_in_dim(x, token, some_tokens, axis=1) if x.shape[1] == tokens else x
            return _from_bits(x, dtype)

        row_inputs: Tree = inputs._replace(p=(), pieces=None)  # type: ignore[arg-type]  # p has no rows
        some, *others = jax.tree.map(cut, (row_inputs, *operands))
        results, terms = over_rows(compute, some._replace(p=inputs.p), *others)
        is_new = jnp.minimum(token, tokens - some_tokens) + jnp.arange(some_tokens) >= token
        return OfTokens(results, jax.tree.map(functools.partial(_sum_where, is_new), terms))

    def some_rows_of(whole: OfTokens, row: Array) -> tuple[OfTokens, None]:
        def add(carry: OfTokens, token: Array) -> tuple[OfTokens, None]:
            def write(whole: Array, part: Array) -> Array:
                return lax.dynamic_update_slice(whole, _as_bits(part), (row, token, *(0,) * (part.ndim - 2)))

            results, sums = block(row, token)
            return OfTokens(jax.tree.map(write, carry.results, results), jax.tree.map(jnp.add, carry.terms, sums)), None

        zeros = jax.tree.map(lambda x: varying(jnp.zeros(x.shape, x.dtype)), like.terms)
        part, _ = lax.scan(add, OfTokens(whole.results, zeros), jnp.arange(0, tokens, some_tokens))
        sums = jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, row, 0), whole.terms, part.terms)
        return OfTokens(part.results, sums), None

    like = jax.eval_shape(block, 0, 0)
    varying = _as_varying_as(inputs, operands)
    results = jax.tree.map(lambda x: varying(_as_bits(lax.empty((rows, tokens, *x.shape[2:]), x.dtype))), like.results)
    sums = jax.tree.map(lambda x: varying(lax.empty((rows, *x.shape[1:]), x.dtype)), like.terms)
    whole, _ = lax.scan(some_rows_of, OfTokens(results, sums), jnp.arange(0, rows, some_rows))
    return OfTokens(jax.tree.map(lambda x, of: _from_bits(x, of.dtype), whole.results, like.results), whole.terms)


def _as_bits(x: Array) -> Array:
    """16-bit floats as integers: XLA's CPU backend has no slices of them and would convert the whole array first."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _from_bits(x: Array, dtype: Any) -> Array:
    return lax.bitcast_convert_type(x, dtype) if dtype.itemsize == 2 else x


def _sum_where(keep: Array, x: Array) -> Array:
    """Sum over the kept tokens: [B T ...] -> [B 1 ...]."""
    rows, tokens, *rest = x.shape
    weights = jnp.broadcast_to(keep.astype(x.dtype), (rows, tokens))
    flat = x.reshape(rows, tokens, -1)
    return jnp.einsum("bt,btk->bk", weights, flat, precision=lax.Precision.HIGHEST).reshape(rows, 1, *rest)


def _as_varying_as(*trees: Tree) -> Callable[[Array], Array]:
    """A cast of new arrays to what varies over the same shard_map axes as ``trees``."""
    axes = frozenset().union(*map(_compat.varying_axes, jax.tree.leaves(trees)))
    return functools.partial(_compat.make_varying, axes=axes)


def _block(shape: tuple[int, ...], blocks: int) -> tuple[int, int]:
    """Rows and tokens of one of ``blocks`` or more: two rows, for two threads, and as many tokens as that leaves."""
    rows, tokens, *features = shape
    width = math.prod(features)
    size = min(rows * tokens * width // blocks, _MAX_SIZE)
    some_rows = min(rows, 2)
    some_tokens = min(tokens, max(1, size // (some_rows * width)))
    some_rows = min(rows, max(some_rows, size // (some_tokens * width)))
    return some_rows, math.ceil(tokens / math.ceil(tokens / some_tokens))


def _feature_blocks(rows: int, width: int, least: int) -> int:
    """Into how many equal blocks to cut the features of a row, each of ``least`` or more."""
    divisors = [d for d in range(1, width + 1) if width % d == 0 and (d == 1 or width // d >= least)]
    return next((d for d in divisors if rows * d >= _FEATURE_BLOCKS), divisors[-1])
