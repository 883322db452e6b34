"""The attention of every text of a batch."""

import jax.numpy as jnp
from jax import Array

from lnpool._formulas import attention as formula
from lnpool._formulas.safe import at_least, finite, select
from lnpool._types import Attention, Call, Inputs
from lnpool._xla import packed
from lnpool._xla.cpu_blocks import Block, Parts, over_tokens
from lnpool._xla.reduce import Meeting


def rows_of(inputs: Inputs) -> tuple[Array, Array | None]:
    """Scores and mask, packed ones as rows [B T ...]."""
    scores, mask, packing = inputs.tokens.scores, inputs.tokens.mask, inputs.packing
    if packing is None:
        return scores, mask
    of_row = packing.mask.reshape(*packing.mask.shape, *(1,) * (scores.ndim - 2))
    return packed.rows(packing, scores), of_row if mask is None else of_row & packed.rows(packing, mask)


def attend(call: Call, inputs: Inputs) -> Attention:
    """Scores to attention.

    Tokens are on the last axis meanwhile: on a CPU, XLA vectorises over no other, and scores have K = 1.
    """
    meeting = Meeting(inputs.packing, call.axis_name)
    scores, mask = (None if x is None else _tokens_last(x) for x in rows_of(inputs))
    p = _tokens_last(formula.power(inputs.p, call.sharpen))
    assert scores is not None
    one = jnp.ones((), p.dtype)
    is_text = None if mask is None else meeting.total(mask.astype(p.dtype), axis=-1) > 0
    scores = finite(select(mask, scores, 0).astype(p.dtype))
    largest, smallest = (select(is_text, meeting.extremum(sign, scores, mask, axis=-1), 0) for sign in (one, -one))
    offset = _tokens_first(jnp.where(p >= 0, largest, smallest))
    return Attention(offset, *_normalise(call, inputs, meeting, _tokens_first(scores), offset))


def _normalise(call: Call, inputs: Inputs, meeting: Meeting, scores: Array, offset: Array) -> tuple[Array, Array]:
    """The sums of the attention over tokens: log_z and mean_z, as wide as the exponent."""
    p, (_, mask) = formula.power(inputs.p, call.sharpen), rows_of(inputs)
    of_row = meeting.rows(offset)

    def exponentials(z: Array, p: Array, mask: Array | None) -> tuple[Array, Array]:
        terms = jnp.exp(select(mask, formula.exponents(p, z), -jnp.inf))
        return terms, terms * z

    if offset.shape[-1] == 1:
        z, mask = _tokens_last(formula.centred(scores, of_row)), None if mask is None else _tokens_last(mask)
        sums = (meeting.total(x, axis=-1) for x in exponentials(z, _tokens_last(p), mask))
        total, weighted = (_tokens_first(x) for x in sums)
    else:

        def wide(block: Block) -> Parts:
            return Parts(sums=exponentials(formula.centred(block.scores, of_row), p, block.mask))

        source = None if inputs.packing is None else inputs.packing.source
        parts = over_tokens(wide, Block(inputs.tokens.states, scores, mask), source)
        total, weighted = (meeting.sums(x) for x in parts.sums)
    total = at_least(total, 1)
    return jnp.log(total), weighted / total


def _tokens_last(x: Array) -> Array:
    """[B T *H K] -> [B *H K T]."""
    return jnp.moveaxis(x, 1, -1)


def _tokens_first(x: Array) -> Array:
    return jnp.moveaxis(x, -1, 1)
