"""From formulas for one row of tokens to a batch: by vmap, or on a CPU by a loop over rows and blocks of features.

The CPU backend of XLA stores an intermediate that two sums share, so that one pass over memory would become four or
more. Row by row the intermediates stay in cache, whatever the formula and the version of XLA. GPU and TPU fuse the
whole batch instead, and a loop would only slow them down.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat
from lnpool._types import Inputs
from lnpool._weights import ROWS

Tree: TypeAlias = Any  # a pytree of arrays

_BLOCKS = 160  # enough that the intermediates of one block are a few per cent of the states
_MIN_SIZE = 2**16  # elements of the batch below which a loop does not pay
_MIN_WIDTH = 8  # features of a block: half a cache line of float32


def over_rows(compute: Callable[..., Tree], inputs: Inputs, *operands: Tree) -> Tree:
    """``compute(row, *operands of the row)`` for every row: [B ...] arrays in and out, p shared."""
    mapped: Tree = jax.tree.map(lambda _: 0, inputs)._replace(p=None, pieces=None)
    return jax.vmap(compute, in_axes=(mapped, *(0 for _ in operands)), axis_name=ROWS)(inputs, *operands)


def fused_over_rows(compute: Callable[..., Tree], inputs: Inputs, *operands: Tree) -> Tree:
    """``over_rows`` without a temporary of the size of the states.

    ``compute`` must not sum over other rows or devices, and must treat features independently; a result of width 1 is
    a sum over features, to which every block of features adds its part.
    """
    rows, *_, width = inputs.states.shape
    if inputs.states.size < _MIN_SIZE:
        return over_rows(compute, inputs, *operands)
    blocks = _feature_blocks(rows, width)
    size = width // blocks

    def block_of(x: Array, block: Array) -> Array:
        return lax.dynamic_slice_in_dim(x, block * size, size, axis=-1) if x.shape[-1] == width else x

    def on_cpu(inputs: Inputs, *operands: Tree) -> Tree:
        def part(row: Array, block: Array) -> Tree:
            def of_row(tree: Tree) -> Tree:
                return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, row, keepdims=False), tree)

            row_inputs: Tree = inputs._replace(p=(), pieces=None)  # type: ignore[arg-type]  # p has no rows
            args = (of_row(row_inputs)._replace(p=inputs.p), *map(of_row, operands))
            return compute(*jax.tree.map(lambda x: block_of(x, block), args))

        def step(whole: Tree, index: Array) -> tuple[Tree, None]:
            row, block = index // blocks, index % blocks

            def write(whole: Array, part: Array) -> Array:
                is_sum = part.shape[-1] != size
                start: list[Any] = [row, *([0] * (part.ndim - 1)), 0 if is_sum else block * size]
                if is_sum:
                    part = part + lax.dynamic_slice(whole, start, (1, *part.shape))[0]
                return lax.dynamic_update_slice(whole, part[None], start)

            return jax.tree.map(write, whole, part(row, block)), None

        like = jax.eval_shape(part, 0, 0)
        axes = frozenset().union(*map(_compat.varying_axes, jax.tree.leaves((inputs, operands))))

        def allocate(x: jax.ShapeDtypeStruct) -> Array:
            shape = (rows, *x.shape[:-1], width if x.shape[-1] == size else x.shape[-1])
            return _compat.make_varying(jnp.zeros(shape, x.dtype), axes)

        return lax.scan(step, jax.tree.map(allocate, like), jnp.arange(rows * blocks))[0]

    def default(inputs: Inputs, *operands: Tree) -> Tree:
        return over_rows(compute, inputs, *operands)

    return lax.platform_dependent(inputs, *operands, cpu=on_cpu, default=default)


def _feature_blocks(rows: int, width: int) -> int:
    """Into how many equal blocks to cut the features of a row."""
    divisors = [d for d in range(1, width + 1) if width % d == 0 and (d == 1 or width // d >= _MIN_WIDTH)]
    return next((d for d in divisors if rows * d >= _BLOCKS), divisors[-1])
