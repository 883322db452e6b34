"""Axis letters, the frozen description of one call, and what a forward pass leaves for the backward pass.

Axis letters, used in every annotation and in no name: B batch, T tokens, D features, H heads. Head k owns the
features k*D/H .. (k+1)*D/H - 1; K = D/H. Inside the backends every array is in its *canonical* shape:

    states [B T *H K]    scores [B T *H 1]    p [1 *H|1 K|1]    mask [B T *1 1] or None    sums over tokens [B 1 *H K]

and the formulas are those of one row, without B: written with broadcasting, they serve one exponent, one per head and
one per feature. A single head has no head axis: XLA would copy the states to make room for it.
"""

import dataclasses
import math
from typing import Literal, NamedTuple, TypeAlias

from jax import Array

Implementation: TypeAlias = Literal["reference", "xla", "xla_jvp", "pallas"]
ScaleLimitName: TypeAlias = Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"]


@dataclasses.dataclass(frozen=True)
class Call:
    """The static facts of one call, checked; hashable, so that jit can key on it."""

    implementation: Implementation
    log_states: bool = False
    scale_limit: ScaleLimitName | None = None
    log_range: tuple[float, float] | None = None  # proven or promised bounds of log h; None where unknown
    sharpen: bool = True
    axis_name: str | None = None  # the shard_map axis over which the tokens of every row are split

    @property
    def is_linear(self) -> bool:
        """Whether the states are h itself, and not its logarithm or on the way to it."""
        return not (self.log_states or self.scale_limit)

    @property
    def is_bounded(self) -> bool:
        """Whether log h has a known, finite range."""
        return self.log_range is not None and all(map(math.isfinite, self.log_range))


class Pieces(NamedTuple):
    """How packed texts are cut into rows of equal length; see ``_pieces``. N tokens, S texts, B rows of T tokens."""

    source: Array  # [B T] the token at each place of a row
    mask: Array  # [B T] whether it belongs to the row
    home: Array  # [N] the place of each token among all B*T
    owned: Array  # [N] whether the token belongs to a text
    text: Array  # [B] the text of each row
    last: Array  # [S] the last row of each text
    start: Array  # [S] the first token of each text


class Inputs(NamedTuple):
    """The array arguments of one call in canonical shape; packed texts are one row, which ``pieces`` cuts."""

    states: Array
    scores: Array
    p: Array
    mask: Array | None
    pieces: Pieces | None = None


class Residuals(NamedTuple):
    """What the backward pass keeps beside the inputs: nothing of the size of the states.

    All as wide as r, [B 1 *H K], in float32 at least; the attention is kept beside them. ``value`` is r before it is
    rounded to the dtype of the states; ``slope`` is d log r / d p, which the forward pass knows more cheaply than the
    backward pass would.
    """

    value: Array
    slope: Array
    rho: Array  # log(r / reference)
    reference: Array  # of h (linear states) or of log h
    x_reference: Array  # largest exponent, and the log of the sum of all relative to it
    log_w: Array
