"""The portable implementation: plain jax.numpy, fused by XLA on every platform. The fast default.

Two forms of the same function, chosen at run time from the exponents: the single pass of ``_bounded`` where it is as
accurate, ``_exact`` everywhere else. Gradients are the partial derivatives of either form, contracted with the
cotangent (reverse mode) or with the tangents (forward mode).
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _bounded, _compat, _exact, _pieces
from lnpool._rows import OfTokens, fused_over_rows, over_blocks, over_features, over_rows
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, Centred, attend, centre, normalise, select, total

Tree: TypeAlias = Any  # a pytree of arrays
Saved: TypeAlias = tuple[Attention, Residuals]
Rows: TypeAlias = Callable[..., Tree]  # (inputs, *operands), all [B ...], to [B ...]


def _form(call: Call, exact: Rows, bounded: Rows, inputs: Inputs) -> Rows:
    """The form that suits the exponents of this call."""
    fast = _bounded.applies(call, inputs)
    return exact if fast is None else functools.partial(lax.cond, fast, bounded, exact)


def attention_of(call: Call, inputs: Inputs) -> Attention:
    """The attention of every row; that of packed texts is the attention of their rows."""
    is_of_features = call.sharpen and inputs.p.shape[-1] > 1  # as many weights as states, of which only sums are stored
    if not is_of_features:
        return over_rows(functools.partial(attend, call), _rows_of(inputs))

    def sums(inputs: Inputs, centred: Centred) -> tuple[Array, Array]:
        return _exact_rows(call, normalise, inputs)(_rows_of(inputs), centred)

    centred = over_rows(functools.partial(centre, call), _rows_of(inputs))
    return Attention(*centred, *over_features(sums, inputs, centred))


def _rows_of(inputs: Inputs) -> Inputs:
    """Packed texts as rows; other inputs are rows already."""
    pieces, mask = inputs.pieces, inputs.mask
    if pieces is None:
        return inputs
    of_row = pieces.mask.reshape(*pieces.mask.shape, *(1,) * (inputs.scores.ndim - 2))
    return inputs._replace(
        states=_pieces.rows(pieces, inputs.states),
        scores=_pieces.rows(pieces, inputs.scores),
        mask=of_row if mask is None else of_row & _pieces.rows(pieces, mask),
    )


def _of_texts(inputs: Inputs, tree: Tree) -> Tree:
    """What rows know, [B 1 ...], as what texts know, [S 1 ...]."""
    if inputs.pieces is None:
        return tree
    return jax.tree.map(functools.partial(_pieces.of_texts, inputs.pieces), tree)


def _on_all_devices(call: Call, tree: Tree) -> Tree:
    """Numbers that all devices of ``axis_name`` hold: a sum of one of them says so to JAX, and is linear."""

    def invariant(x: Array) -> Array:
        if call.axis_name not in _compat.varying_axes(x):
            return x
        return lax.psum(jnp.where(lax.axis_index(call.axis_name) == 0, x, 0), call.axis_name)

    return jax.tree.map(invariant, tree)


def _of_rows(inputs: Inputs, tree: Tree) -> Tree:
    """What texts know, [S 1 ...], told to their rows [B 1 ...]."""
    if inputs.pieces is None:
        return tree
    return jax.tree.map(functools.partial(_pieces.of_rows, inputs.pieces), tree)


def _exact_rows(call: Call, compute: Callable[..., Tree], inputs: Inputs) -> Rows:
    """How to run an exact formula that sums over tokens: row by row, unless other rows or devices have a part in it."""
    is_whole = inputs.pieces is None and call.axis_name is None
    return functools.partial(fused_over_rows if is_whole else over_rows, functools.partial(compute, call))


def _bounded_sums(call: Call, count: int, inputs: Inputs, attention: Attention) -> Tree:
    """The first ``count`` sums of the bounded form [B 1 *H K]."""

    def summands(inputs: Inputs, attention: Attention) -> OfTokens:
        return OfTokens(terms=_bounded.summands(call, inputs, attention)[:count])

    def sums(inputs: Inputs, attention: Attention) -> Tree:
        return tuple(total(call, inputs, x) for x in summands(inputs, attention).terms)

    if inputs.pieces is None and call.axis_name is None:
        # Of log states only the terms themselves are stored; a scale limit stores their logarithms, too.
        return over_blocks(summands, inputs, attention, intermediates=count if call.scale_limit else 1).terms
    return over_rows(sums, inputs, attention)


def _pooled(call: Call, form: Rows, inputs: Inputs, attention: Attention) -> Tree:
    """What a form knows of every text."""

    def some_features(inputs: Inputs, attention: Attention) -> Tree:
        return _of_texts(inputs, form(_rows_of(inputs), attention))

    return _on_all_devices(call, over_features(some_features, inputs, attention))


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""

    def bounded(inputs: Inputs, attention: Attention) -> Array:
        (w,) = _bounded_sums(call, 1, inputs, attention)
        return over_rows(functools.partial(_bounded.value, call), inputs, w)

    form = _form(call, _exact_rows(call, _exact.value, inputs), bounded, inputs)
    return _pooled(call, form, inputs, attention_of(call, inputs)).astype(inputs.states.dtype)


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""

    def bounded(inputs: Inputs, attention: Attention) -> Residuals:
        w, e = _bounded_sums(call, 2, inputs, attention)
        return over_rows(functools.partial(_bounded.forward, call), inputs, attention, w, e)

    form = _form(call, _exact_rows(call, _exact.forward, inputs), bounded, inputs)
    attention = attention_of(call, inputs)
    residuals = _pooled(call, form, inputs, attention)
    return residuals.value.astype(inputs.states.dtype), (attention, residuals)


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    attention, residuals = saved
    g = g.astype(inputs.p.dtype)
    dp = exponent_cotangent(inputs, residuals, g)
    if call.axis_name and call.axis_name not in _compat.varying_axes(inputs.states):
        g = lax.psum(g, call.axis_name)  # check_vma=False: every device holds a part of the cotangent

    def contract(cotangents: Callable[..., tuple[Array, Array]], inputs: Inputs, *saved: Tree) -> OfTokens:
        dstates, dscores = cotangents(call, inputs, *saved)
        return OfTokens((_chain(call, inputs, dstates).astype(inputs.states.dtype), dscores))

    exact = functools.partial(over_blocks, functools.partial(contract, _exact.cotangents))
    bounded = functools.partial(over_blocks, functools.partial(contract, _bounded.cotangents))
    if call.log_states and inputs.states.dtype == inputs.p.dtype and inputs.p.size == 1:
        # The cotangent of the states is the only array of their size, and XLA needs no loop to keep it so.
        bounded = functools.partial(over_rows, functools.partial(contract, _bounded.cotangents_of_rows))
    form = _form(call, exact, bounded, inputs)

    def of_tokens(inputs: Inputs, attention: Attention, residuals: Residuals, g: Array) -> tuple[Array, Array]:
        dstates, dscores = form(_rows_of(inputs), attention, *_of_rows(inputs, (residuals, g))).results
        if inputs.pieces is None:
            return dstates, dscores
        return _pieces.tokens(inputs.pieces, dstates), _pieces.tokens(inputs.pieces, dscores)

    dstates, dscores = over_features(of_tokens, inputs, attention, residuals, g)
    return Inputs(dstates, dscores.astype(inputs.scores.dtype), dp, None)


def exponent_cotangent(inputs: Inputs, residuals: Residuals, g: Array) -> Array:
    """The cotangent of p: no reduction over tokens is left, the slope holds it."""
    dp = jnp.sum(g * residuals.value * residuals.slope, axis=0)
    broadcast = tuple(axis for axis in range(dp.ndim) if inputs.p.shape[axis] == 1 != dp.shape[axis])
    return jnp.sum(dp, axis=broadcast, keepdims=True)


def tangent(call: Call, inputs: Inputs, saved: Saved, tangents: Inputs) -> Array:
    """Tangent of the pooled states [B 1 *H K] for the tangents of states, scores and p."""
    attention, residuals = saved

    def contract(
        form: ModuleType,
        inputs: Inputs,
        attention: Attention,
        residuals: Residuals,
        dstates: Array,
        dscores: Array,
    ) -> Array:
        dr_dstates, dr_dscores = form.partials(call, inputs, attention, residuals)
        by_states = _chain(call, inputs, dr_dstates) * dstates.astype(inputs.p.dtype)
        by_scores = dr_dscores * dscores.astype(inputs.p.dtype)
        return total(call, inputs, select(inputs.mask, by_states + by_scores, 0))

    # No loop over rows: reverse mode would keep its partial derivatives anyway, and jax 0.7 cannot transpose it.
    moved = _rows_of(inputs._replace(states=tangents.states, scores=tangents.scores))
    exact, bounded = (functools.partial(over_rows, functools.partial(contract, form)) for form in (_exact, _bounded))
    form = _form(call, exact, bounded, inputs)
    of_rows = _of_rows(inputs, residuals)
    by_tokens = form(_rows_of(inputs), attention, of_rows, moved.states, moved.scores)
    by_exponent = residuals.value * residuals.slope * tangents.p[None]
    return (_on_all_devices(call, _of_texts(inputs, by_tokens)) + by_exponent).astype(inputs.states.dtype)


def _chain(call: Call, inputs: Inputs, dstates: Array) -> Array:
    """From the derivative by log states to the one by the raw states."""
    if call.scale_limit:
        raw = select(inputs.mask, inputs.states, 0).astype(inputs.p.dtype)
        dstates = dstates * SCALE_LIMITS[call.scale_limit].derivative(raw)
    return dstates
