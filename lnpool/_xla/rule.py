"""Value, forward, backward and tangent of the portable implementation.

Two forms of the same function: the single pass, and where that is not accurate, for its exponent or because its sum
comes near the end of float range, the exact form. Which form serves is a matter of every pooled number alone, so that
no row of a batch depends on another; the exact form runs only if some number of the batch needs it. Gradients are the
partial derivatives of either form, contracted with the cotangent (reverse mode) or with the tangents (forward mode).
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat
from lnpool._formulas.safe import select
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._types import Attention, Call, Inputs, Residuals, Tokens
from lnpool._xla import packed
from lnpool._xla.attend import attend
from lnpool._xla.cpu_blocks import Block, Parts, over_tokens
from lnpool._xla.forms import (
    Pair,
    Pooled,
    exact_form,
    exact_pullback,
    relative_to_result,
    single,
    single_cotangents,
    single_pullback,
)
from lnpool._xla.reduce import Meeting
from lnpool._xla.texts import Texts, texts_of

Saved: TypeAlias = tuple[Attention, Residuals]


def _pooled(call: Call, inputs: Inputs, want_slope: bool) -> Saved:
    attention = attend(call, inputs)
    texts = texts_of(call, inputs, attention)
    fast = Pooled(*jnp.broadcast_arrays(*single(texts, want_slope)))

    def with_exact() -> Pooled:
        slow = exact_form(texts, want_slope)
        return jax.tree.map(functools.partial(jnp.where, fast.single), fast, slow)._replace(single=fast.single)

    pooled = lax.cond(jnp.all(fast.single), lambda: fast, with_exact)
    return attention, Meeting(None, call.axis_name).on_all_devices(pooled.residuals(call))


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""
    return _pooled(call, inputs, want_slope=False)[1].value.astype(inputs.tokens.states.dtype)


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""
    attention, residuals = _pooled(call, inputs, want_slope=True)
    return residuals.value.astype(inputs.tokens.states.dtype), (attention, residuals)


def _pullback(texts: Texts, block: Block, weights: Pair, of: Residuals, g: Array, with_exact: bool) -> Pair:
    """Cotangents of (raw) states and scores [B T *H K], 0 at padding whatever that holds.

    ``weights`` are the offset and log Z of the attention.
    """
    by_states, by_scores = single_pullback(texts, block, of, g, *weights, with_exact)
    if with_exact:
        exact_by_states, exact_by_scores = exact_pullback(texts, block, of, g, *weights)
        by_states = jnp.where(of.single, by_states, exact_by_states)
        by_scores = jnp.where(of.single, by_scores, exact_by_scores)
    if texts.call.scale_limit:
        raw = select(block.mask, block.states, 0).astype(texts.p.dtype)
        by_states = by_states * SCALE_LIMITS[texts.call.scale_limit].derivative(raw)
    return select(block.mask, by_states, 0), select(block.mask, by_scores, 0)


def _by_form(residuals: Residuals, run: Callable[[bool], tuple[Array, ...]]) -> tuple[Array, ...]:
    """``run(with_exact)``, with the exact form only if some number needs it."""
    return lax.cond(jnp.all(residuals.single), lambda: run(False), lambda: run(True))


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    (attention, residuals), (tokens, p, packing) = saved, inputs
    g = g.astype(p.dtype)
    dp = exponent_cotangent(inputs, residuals, g)
    if call.axis_name and call.axis_name not in _compat.varying_axes(tokens.states):
        g = lax.psum(g, call.axis_name)  # check_vma=False: every device holds a part of the cotangent
    texts = texts_of(call, inputs, attention)
    by_token = texts.tokens
    if packing is not None:
        # No token depends on another, so packed texts need no rows here: each token looks up the numbers of its text.
        by_token = Block(tokens.states, tokens.scores, packed.real(packing, tokens), packing.owner[None])

    of_attention = (attention.offset, attention.log_z)

    def contract(with_exact: bool) -> tuple[Array, ...]:
        if not with_exact and _are_stored(call, inputs):
            return single_cotangents(texts, residuals, g)
        relative = relative_to_result(call, residuals)

        def compute(block: Block) -> Parts:
            weights, known, of_text = jax.tree.map(lambda x: _told(block, x), (of_attention, relative, g))
            dstates, dscores = _pullback(texts, block, weights, known, of_text, with_exact)
            return Parts((dstates.astype(tokens.states.dtype), jnp.sum(dscores, axis=-1, keepdims=True)))

        of_features = p.shape[-1] > 1  # the attention of a block is then as wide as its states
        return over_tokens(compute, by_token, intermediates=tokens.states.ndim + of_features).each

    dstates, dscores = _by_form(residuals, contract)
    return Inputs(Tokens(dstates, dscores.astype(tokens.scores.dtype), None), dp)


def _are_stored(call: Call, inputs: Inputs) -> bool:
    """Whether the shares of the tokens can be added up from the cotangents of the states.

    They must not be rounded there, have another factor, or meet what padding holds.
    """
    tokens, narrow = inputs.tokens, inputs.packing is None and inputs.p.shape[-1] == 1
    plain = call.scale_limit is None or SCALE_LIMITS[call.scale_limit].is_identity
    alone = tokens.mask is None or not call.is_linear
    return plain and narrow and alone and tokens.states.dtype == inputs.p.dtype


def _told(block: Block, x: Array) -> Array:
    """What is known of every text, told to its tokens."""
    return x if block.owner is None or x.shape[0] == 1 else x[block.owner[0], 0][None]


def exponent_cotangent(inputs: Inputs, residuals: Residuals, g: Array) -> Array:
    """The cotangent of p: no reduction over tokens is left, the slope holds it."""
    by_text = jnp.where(g == 0, 0, g * residuals.gain * residuals.slope)
    broadcast = tuple(axis for axis, size in enumerate(inputs.p.shape) if size == 1)
    return jnp.sum(by_text, axis=broadcast, keepdims=True)


def tangent(call: Call, inputs: Inputs, saved: Saved, tangents: Inputs) -> Array:
    """Tangent of the pooled states [B 1 *H K] for the tangents of states, scores and p."""
    attention, residuals = saved
    texts, meeting = texts_of(call, inputs, attention), Meeting(inputs.packing, call.axis_name)
    moved, whole = tangents.tokens, texts.tokens
    dstates, dscores = moved.states, moved.scores
    if inputs.packing is not None:
        dstates, dscores = (packed.rows(inputs.packing, x) for x in (dstates, dscores))
        whole = whole._replace(states=packed.rows(inputs.packing, whole.states))
    dstates, dscores = (select(whole.mask, x, 0).astype(inputs.p.dtype) for x in (dstates, dscores))
    weights, known, ones = meeting.rows(
        ((attention.offset, attention.log_z), relative_to_result(call, residuals), jnp.ones_like(residuals.value))
    )

    # No loop over tokens: reverse mode would keep the partial derivatives anyway. And nothing but them in the
    # conditional: one that holds tangents too cannot be transposed when vmap makes it a select.
    partials = functools.partial(_pullback, texts, whole, weights, known, ones)
    by_states, by_scores = _by_form(residuals, partials)
    by_tokens = jnp.sum(by_states * dstates + by_scores * dscores, axis=1, keepdims=True)
    by_tokens = meeting._replace(packing=inputs.packing).sums(by_tokens)
    by_exponent = residuals.gain * residuals.slope * tangents.p
    total = Meeting(None, call.axis_name).on_all_devices(by_tokens) + by_exponent
    return total.astype(inputs.tokens.states.dtype)
