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
from lnpool._rows import fused_over_rows, over_rows
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, attend, select, total

Tree: TypeAlias = Any  # a pytree of arrays
Saved: TypeAlias = tuple[Attention, Residuals]


def _by_form(
    call: Call,
    apply: Callable[..., Tree],
    inputs: Inputs,
    *operands: Tree,
    rows: Callable[..., Tree] = fused_over_rows,
    bounded_rows: Callable[..., Tree] | None = None,
) -> Tree:
    """``apply(form, rows of inputs, *operands)`` row by row, with the form that suits the exponents of this call."""

    def run(form: ModuleType, *operands: Tree) -> Tree:
        over = bounded_rows if form is _bounded and bounded_rows else rows
        return over(functools.partial(apply, form), *operands)

    fast = _bounded.applies(call, inputs)
    inputs = _rows_of(inputs)
    if fast is None:
        return run(_exact, inputs, *operands)
    return lax.cond(fast, functools.partial(run, _bounded), functools.partial(run, _exact), inputs, *operands)


def _attend(call: Call, inputs: Inputs) -> Attention:
    return over_rows(functools.partial(attend, call), _rows_of(inputs))


def _rows_of(inputs: Inputs) -> Inputs:
    """Packed texts as rows; other inputs are rows already."""
    pieces, mask = inputs.pieces, inputs.mask
    if pieces is None:
        return inputs
    of_row = pieces.mask.reshape(*pieces.mask.shape, *(1,) * (inputs.states.ndim - 2))
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


def _reducing(call: Call, inputs: Inputs) -> Callable[..., Tree]:
    """How to run a formula that sums over tokens: a loop over rows where no other row or device has a part."""
    return fused_over_rows if inputs.pieces is None and call.axis_name is None else over_rows


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""

    def apply(form: ModuleType, inputs: Inputs, attention: Attention) -> Array:
        return form.value(call, inputs, attention)

    rows = _reducing(call, inputs)
    single_sum = over_rows if inputs.mask is None and _compat.FUSES_SUMS_ON_CPU else rows
    r = _by_form(call, apply, inputs, _attend(call, inputs), rows=rows, bounded_rows=single_sum)
    return _of_texts(inputs, r).astype(inputs.states.dtype)


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""

    def apply(form: ModuleType, inputs: Inputs, attention: Attention) -> Residuals:
        return form.forward(call, inputs, attention)

    attention = _attend(call, inputs)
    residuals = _by_form(call, apply, inputs, attention, rows=_reducing(call, inputs))
    return _of_texts(inputs, residuals.value).astype(inputs.states.dtype), (attention, residuals)


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    attention, residuals = saved
    g = g.astype(inputs.p.dtype)
    dp = exponent_cotangent(inputs, _of_texts(inputs, residuals), g)
    if call.axis_name and call.axis_name not in _compat.varying_axes(inputs.states):
        g = lax.psum(g, call.axis_name)  # check_vma=False: every device holds a part of the cotangent
    if inputs.pieces is not None:
        g = g[inputs.pieces.text]

    def contract(
        form: ModuleType, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array
    ) -> tuple[Array, Array]:
        dr_dstates, dr_dscores = form.partials(call, inputs, attention, residuals)
        dstates = _chain(call, inputs, g * dr_dstates).astype(inputs.states.dtype)
        return dstates, jnp.sum(select(inputs.mask, g * dr_dscores, 0), axis=-1, keepdims=True)

    dstates, dscores = _by_form(call, contract, inputs, attention, residuals, g)
    if inputs.pieces is not None:
        dstates, dscores = (_pieces.tokens(inputs.pieces, x) for x in (dstates, dscores))
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
        by_states = _chain(call, inputs, dr_dstates) * select(inputs.mask, dstates, 0).astype(inputs.p.dtype)
        by_scores = select(inputs.mask, dr_dscores * dscores.astype(inputs.p.dtype), 0)
        return total(call, inputs, by_states + by_scores)

    # No loop over rows: reverse mode would keep its partial derivatives anyway, and jax 0.7 cannot transpose it.
    moved = _rows_of(inputs._replace(states=tangents.states, scores=tangents.scores))
    by_tokens = _by_form(call, contract, inputs, attention, residuals, moved.states, moved.scores, rows=over_rows)
    by_exponent = residuals.value * residuals.slope * tangents.p[None]
    return _of_texts(inputs, by_tokens + by_exponent).astype(inputs.states.dtype)


def _chain(call: Call, inputs: Inputs, dr_dstates: Array) -> Array:
    """From the derivative by log states to the one by the raw states, and exactly 0 at padding."""
    if call.scale_limit:
        raw = select(inputs.mask, inputs.states, 0).astype(inputs.p.dtype)
        dr_dstates = dr_dstates * SCALE_LIMITS[call.scale_limit].derivative(raw)
    return select(inputs.mask, dr_dstates, 0)
