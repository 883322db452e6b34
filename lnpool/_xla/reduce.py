"""The only sums over tokens: where the rows of a text, and the devices that share it, meet.

A row knows the sum over its own tokens [B 1 ...]. Rows of packed texts meet by a segmented scan, devices by a
collective; what is then known of every text is [S 1 ...], and may be told to its rows again. Where a text is one row
on one device, S is B and nothing happens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat
from lnpool._formulas.safe import select
from lnpool._types import Packing
from lnpool._xla import packed

Tree: TypeAlias = Any  # a pytree of arrays


class Meeting(NamedTuple):
    """Where what is known of rows becomes what is known of texts."""

    packing: Packing | None
    axis_name: str | None

    def sums(self, x: Array) -> Array:
        """Sums of rows [B 1 ...] -> of texts [S 1 ...]."""
        return self._meet(x, jnp.add, lax.psum)

    def maxima(self, x: Array) -> Array:
        """Maxima of rows [B 1 ...] -> of texts [S 1 ...]. No gradient."""
        return lax.stop_gradient(self._meet(lax.stop_gradient(x), jnp.maximum, lax.pmax))

    def _meet(self, x: Array, operation: Callable[[Array, Array], Array], collective: Callable[..., Array]) -> Array:
        if self.packing is not None:
            x = packed.combine(self.packing, x, operation)
        return x if self.axis_name is None else collective(x, self.axis_name)

    def rows(self, tree: Tree) -> Tree:
        """What is known of texts [S 1 ...], told to their rows [B 1 ...]; what is known of all is not touched."""
        if self.packing is None:
            return tree
        texts = self.packing.last.size
        of_row = self.packing.text
        return jax.tree.map(lambda x: x if x.shape[0] == 1 != texts else x[of_row], tree)

    def total(self, x: Array, axis: int = 1) -> Array:
        """The sum over the tokens of every text."""
        return self.sums(jnp.sum(x, axis=axis, keepdims=True))

    def extremum(self, sign: Array, x: Array, keep: Array | None, axis: int = 1) -> Array:
        """Largest (sign +1) or smallest (sign -1) kept ``x``; -+inf where none is kept. No gradient."""
        kept = select(keep, lax.stop_gradient(sign * x), -jnp.inf)
        return lax.stop_gradient(sign) * self.maxima(jnp.max(kept, axis=axis, keepdims=True))

    def on_all_devices(self, tree: Tree) -> Tree:
        """Numbers that all devices of the axis hold: a sum of one of them says so to JAX, and is linear."""
        name = self.axis_name

        def invariant(x: Array) -> Array:
            if name not in _compat.varying_axes(x):
                return x
            of_one = jnp.where(lax.axis_index(name) == 0, x, jnp.zeros_like(x))
            if x.dtype == bool:
                return lax.psum(of_one.astype(jnp.int32), name) > 0
            return lax.psum(of_one, name)

        return jax.tree.map(invariant, tree)
