"""How the grid of a TPU kernel walks over the tokens of a row: step by step, each in one block and of one text."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

from lnpool._pallas import tiling
from lnpool._pallas.tiling import Tiling

Ref = Any  # a reference to memory of the device


class Rows(NamedTuple):
    """One text a row: a step is a block of its tokens; ``lengths`` is prefetched."""

    tiles: Tiling

    @property
    def steps(self) -> int:
        return self.tiles.token_blocks

    def fetched(self, row: Array, step: Array, lengths: Ref) -> Array:
        """The block in memory."""
        return tiling.fetched_block(step, lengths[row], self.tiles.tokens)

    def written(self, row: Array, step: Array, lengths: Ref) -> Array:
        """The block of the gradient."""
        return step

    def text(self, row: Array, step: Array, lengths: Ref) -> Array:
        return jnp.int32(0)

    def span(self, row: Array, step: Array, lengths: Ref) -> tuple[Array, Array]:
        """Which tokens of the block are those of the step."""
        return jnp.int32(0), jnp.minimum(lengths[row] - step * self.tiles.tokens, self.tiles.tokens)


class Packed(NamedTuple):
    """Several texts a row, cut by ``tiling.steps``; its bounds and texts are prefetched, flat: rows would be padded."""

    tiles: Tiling
    steps: int
    tokens: int  # of a row

    def fetched(self, row: Array, step: Array, bounds: Ref, texts: Ref) -> Array:
        return jnp.minimum(bounds[row * (self.steps + 1) + step], self.tokens - 1) // self.tiles.tokens

    def written(self, row: Array, step: Array, bounds: Ref, texts: Ref) -> Array:
        return self.fetched(row, step, bounds, texts)

    def text(self, row: Array, step: Array, bounds: Ref, texts: Ref) -> Array:
        return texts[row * self.steps + step]

    def span(self, row: Array, step: Array, bounds: Ref, texts: Ref) -> tuple[Array, Array]:
        start = self.fetched(row, step, bounds, texts) * self.tiles.tokens
        at = row * (self.steps + 1) + step
        return bounds[at] - start, bounds[at + 1] - start


def visits(index: Callable[[Array], Array], step: Array, steps: int) -> tuple[Array, Array]:
    """Whether this step is the first, and the last, of those in a row that have its index."""
    here = index(step)
    first = (step == 0) | (index(jnp.maximum(step - 1, 0)) != here)
    return first, (step == steps - 1) | (index(jnp.minimum(step + 1, steps - 1)) != here)


Walk: TypeAlias = Rows | Packed


def walk_over(states: Array, ragged: bool, where: Array) -> tuple[Walk, tuple[Array, ...]]:
    """The walk over ``states`` [B T D], and what it prefetches; ``where`` as in ``tpu``."""
    _, tokens, features = states.shape
    tiles = tiling.tile(tokens, features, states.dtype.itemsize, ragged and where.ndim == 1)
    assert tiles is not None  # ``unsupported`` has said so
    if where.ndim == 1:
        return Rows(tiles), (where,)
    steps = tiling.steps(where, tokens, tiles.tokens)
    return Packed(tiles, steps.texts.shape[1], tokens), (steps.bounds.reshape(-1), steps.texts.reshape(-1))
