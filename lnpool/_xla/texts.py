"""A batch with its attention: what the passes over its tokens need, whichever form takes them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool._formulas import attention as formula
from lnpool._formulas.safe import select
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._types import Attention, Call, Inputs
from lnpool._xla.attend import rows_of
from lnpool._xla.cpu_blocks import Block, Parts, over_tokens
from lnpool._xla.reduce import Meeting


class Texts(NamedTuple):
    """A batch with its attention, as the passes over its tokens need it."""

    call: Call
    p: Array  # [1 1 *H|1 K|1]
    tokens: Block
    attention: Attention
    meeting: Meeting

    def over_tokens(self, compute: Any, **options: Any) -> Parts:
        """``compute`` of all tokens in rows; sums and maxima are of texts."""
        source = None if self.meeting.packing is None else self.meeting.packing.source
        each, sums, maxima = over_tokens(compute, self.tokens, source, **options)
        return Parts(each, jax.tree.map(self.meeting.sums, sums), jax.tree.map(self.meeting.maxima, maxima))

    def rows(self, *arrays: Array) -> Any:
        """What is known of texts, told to their rows."""
        return self.meeting.rows(arrays)

    def z_and_log_v(self, block: Block, offset: Array, log_z: Array) -> tuple[Array, Array]:
        """Centred scores and log v of a block, -inf at padding; ``offset`` and ``log_z`` are those of its rows."""
        z = formula.centred(select(block.mask, block.scores, 0).astype(self.p.dtype), offset)
        log_v = formula.log_weights(formula.power(self.p, self.call.sharpen), z, log_z)
        log_v = select(block.mask, log_v, -jnp.inf)
        # Without the barrier XLA would compute what is as wide as the scores again for every feature.
        return (z, log_v) if log_v.shape[-1] > 1 else lax.optimization_barrier((z, log_v))

    def states(self, block: Block) -> Array:
        """h for linear input, log h otherwise, in the dtype of p; padding reads as something finite, here 1 or 0."""
        raw = select(block.mask, block.states, 1 if self.call.is_linear else 0).astype(self.p.dtype)
        return SCALE_LIMITS[self.call.scale_limit].log_states(raw) if self.call.scale_limit else raw


def texts_of(call: Call, inputs: Inputs, attention: Attention) -> Texts:
    """The batch with its attention."""
    tokens = Block(inputs.tokens.states, *rows_of(inputs))
    return Texts(call, inputs.p, tokens, attention, Meeting(inputs.packing, call.axis_name))
