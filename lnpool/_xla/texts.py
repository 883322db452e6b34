"""A batch with its attention: what the passes over its tokens need, whichever form takes them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool._formulas import attention as formula
from lnpool._formulas.safe import select
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._types import Attention, Call, Inputs
from lnpool._xla.attend import log_weights, rows_of
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
        z = block.scores - offset
        if block.log_v is not None:
            return z, block.log_v
        power = formula.power(self.p, self.call.sharpen)
        return z, select(block.mask, formula.log_weights(power, z, log_z), -jnp.inf)

    def states(self, block: Block) -> Array:
        """h for linear input, log h otherwise, in the dtype of p; padding reads as something finite, here 1 or 0."""
        raw = select(block.mask, block.states, 1 if self.call.is_linear else 0).astype(self.p.dtype)
        return SCALE_LIMITS[self.call.scale_limit].log_states(raw) if self.call.scale_limit else raw


def texts_of(call: Call, inputs: Inputs, attention: Attention) -> Texts:
    """The batch with its attention."""
    log_v = log_weights(call, inputs, attention)
    # Without the barrier XLA would compute the weights again for every feature.
    scores, log_v = lax.optimization_barrier((attention.scores, log_v))
    block = Block(inputs.tokens.states, scores, log_v, rows_of(inputs)[1])
    return Texts(call, inputs.p, block, attention, Meeting(inputs.packing, call.axis_name))
