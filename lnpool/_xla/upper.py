"""The reference of the single pass: an upper bound of the states of every text, known or measured."""

import jax
import jax.numpy as jnp
from jax import Array

from lnpool._formulas.safe import select
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._xla.cpu_blocks import Block, Parts
from lnpool._xla.texts import Texts


def upper(texts: Texts) -> tuple[Array, Array, Array | None]:
    """The reference of every text, whether no state is positive, and of linear states the smallest.

    The reference is the known bound, or the largest state.
    """
    call, shape = texts.call, jnp.broadcast_shapes(texts.p.shape, (1, 1, *texts.tokens.states.shape[2:]))
    if call.upper is not None:
        real = jnp.ones_like(texts.tokens.scores, bool) if texts.tokens.mask is None else texts.tokens.mask
        count = texts.meeting.total(real.astype(texts.p.dtype))
        return jnp.full_like(jnp.broadcast_to(count, (*count.shape[:2], *shape[2:])), call.upper), count == 0, None
    top, *smallest = _extremes(texts)
    if call.is_linear:
        nothing = (top == 0) | jnp.isneginf(top)
        # Where all states are negative, so is their largest, and no ratio would show it.
        return jnp.where(nothing, 1, jnp.where(top < 0, jnp.nan, top)), nothing, -smallest[0]
    empty = jnp.isneginf(top)
    if call.scale_limit:
        top = SCALE_LIMITS[call.scale_limit].log_states(jnp.where(empty, 0, top))
        empty = empty | jnp.isneginf(top)
    return jnp.where(jnp.isneginf(top), 0, top), empty, None


def _extremes(texts: Texts) -> tuple[Array, ...]:
    """The largest raw state of every text, and if they are linear the largest of their negatives; -inf for no token."""
    call, dtype = texts.call, texts.p.dtype
    order = SCALE_LIMITS[call.scale_limit].order if call.scale_limit else None

    def extremes(block: Block) -> Parts:
        states = block.states.astype(dtype)
        states = states if order is None else order(states)
        if not call.is_linear:
            return Parts(maxima=(select(block.mask, states, -jnp.inf),))
        # not even a state of -inf is the maximum of nothing
        both = (jnp.maximum(states, jnp.finfo(dtype).min), -states)
        return Parts(maxima=tuple(select(block.mask, x, -jnp.inf) for x in both))

    plain = order is None and texts.tokens.mask is None and texts.meeting.packing is None
    if not plain or texts.tokens.states.dtype != dtype:
        return texts.over_tokens(extremes).maxima
    states = texts.tokens.states  # a reduction of what is given needs no loop
    top = jnp.max(states, axis=1, keepdims=True)
    known = (jnp.maximum(top, jnp.finfo(dtype).min), -jnp.min(states, axis=1, keepdims=True))
    return jax.tree.map(texts.meeting.maxima, known if call.is_linear else (top,))
