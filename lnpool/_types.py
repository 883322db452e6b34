"""Axis letters, the frozen description of one call, and the arrays that cross between the parts of the library.

Axis letters, used in every annotation and in no name: B batch, T tokens, D features, H heads. Head k owns the
features k*D/H .. (k+1)*D/H - 1; K = D/H. Inside the backends every array is in its *canonical* shape:

    states [B T *H K]    scores [B T *H 1]    mask [B T *1 1] or None    p [1 1 *H|1 K|1]    of a text [B 1 *H K|1]

so that axis 1 is that of tokens everywhere, and formulas written with broadcasting serve one exponent, one per head
and one per feature. A single head has no head axis: XLA would copy the states to make room for it.
"""

import dataclasses
import math
from typing import Literal, NamedTuple, TypeAlias

from jax import Array

Implementation: TypeAlias = Literal["reference", "xla", "xla_jvp", "pallas"]
ScaleLimitName: TypeAlias = Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs", "exp"]


@dataclasses.dataclass(frozen=True)
class Call:
    """The static facts of one call, checked; hashable, so that jit can key on it."""

    implementation: Implementation
    log_states: bool = False
    scale_limit: ScaleLimitName | None = None
    log_range: tuple[float, float] | None = None  # proven or promised bounds of log h; None where unknown
    sharpen: bool = True
    axis_name: str | None = None  # the shard_map axis over which the tokens of every row are split
    log_output: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether the states are h itself, and not its logarithm or on the way to it."""
        return not (self.log_states or self.scale_limit)

    @property
    def upper(self) -> float | None:
        """The known upper bound of log h, if there is one."""
        return self.log_range[1] if self.log_range and math.isfinite(self.log_range[1]) else None


class Packing(NamedTuple):
    """How packed texts are cut into rows of equal length; see ``_xla.packed``. N tokens, S texts, B rows."""

    source: Array  # [B T] the token at each place of a row
    mask: Array  # [B T] whether it belongs to the row
    owned: Array  # [N] whether the token belongs to a text
    owner: Array  # [N] that text, or any other
    text: Array  # [B] the text of each row
    last: Array  # [S] the last row of each text
    start: Array  # [S] the first token of each text


class Tokens(NamedTuple):
    """The arrays of a batch of texts, token by token; packed texts are one row."""

    states: Array
    scores: Array
    mask: Array | None


class Inputs(NamedTuple):
    """The array arguments of one call in canonical shape."""

    tokens: Tokens
    p: Array
    packing: Packing | None = None


class Attention(NamedTuple):
    """The attention of every text: with it, that of a token needs its score alone."""

    offset: Array  # the largest score for p >= 0, the smallest for p < 0 [B 1 *H 1|K], as wide as p
    log_z: Array  # log of the softmax denominator, relative to the offset
    mean_z: Array  # mean of z = scores - offset, with p z <= 0, under the weights


class Residuals(NamedTuple):
    """What the backward pass keeps beside the inputs: nothing of the size of the states.

    Every field is as wide as r, [B 1 *H K], in float32 at least; the attention is kept beside them.
    """

    value: Array  # the result before it is rounded to the dtype of the states: r, or log r
    gain: Array  # d value / d log r: r, or 1 where the result is log r; 0 where r is 0 for want of a positive state
    slope: Array  # d log r / d p, which the forward pass knows more cheaply than the backward pass would
    rho: Array  # log(r / reference)
    reference: Array  # of h (linear states) or of log h
    y_reference: Array  # the exponents of the sum W are relative to it
    log_w: Array  # log W
    single: Array  # boolean: whether the single pass was accurate here, and not the exact form
