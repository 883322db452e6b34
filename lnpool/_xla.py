"""The portable implementation: plain jax.numpy, fused by XLA on every platform. The fast default.

Two forms of the same function, chosen at run time from the exponents: the single pass of ``_bounded`` where it is as
accurate, ``_exact`` everywhere else. Gradients are the partial derivatives of either form, contracted with the
cotangent (reverse mode) or with the tangents (forward mode).
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax import Array, lax

from lnpool import _bounded, _exact
from lnpool._rows import fused_over_rows, over_rows
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import Attention, attend, select, total

Tree: TypeAlias = Any  # a pytree of arrays
Saved: TypeAlias = tuple[Attention, Residuals]


def _by_form(
    call: Call, apply: Callable[..., Tree], inputs: Inputs, *operands: Tree, rows: Callable[..., Tree] = fused_over_rows
) -> Tree:
    """``apply(form, inputs, *operands)`` row by row, with the form that suits the exponents of this call."""

    def run(form: ModuleType, *operands: Tree) -> Tree:
        return rows(functools.partial(apply, form), *operands)

    fast = _bounded.applies(call, inputs)
    if fast is None:
        return run(_exact, inputs, *operands)
    return lax.cond(fast, functools.partial(run, _bounded), functools.partial(run, _exact), inputs, *operands)


def _attend(call: Call, inputs: Inputs) -> Attention:
    return over_rows(functools.partial(attend, call), inputs)


def value(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K] in the dtype of the states."""

    def apply(form: ModuleType, inputs: Inputs, attention: Attention) -> Array:
        return form.value(call, inputs, attention)

    return _by_form(call, apply, inputs, _attend(call, inputs)).astype(inputs.states.dtype)


def forward(call: Call, inputs: Inputs) -> tuple[Array, Saved]:
    """Pooled states [B 1 *H K] in the dtype of the states, and what the derivatives need."""

    def apply(form: ModuleType, inputs: Inputs, attention: Attention) -> Residuals:
        return form.forward(call, inputs, attention)

    attention = _attend(call, inputs)
    residuals = _by_form(call, apply, inputs, attention)
    return residuals.value.astype(inputs.states.dtype), (attention, residuals)


def backward(call: Call, inputs: Inputs, saved: Saved, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 *H K] of the pooled states."""
    attention, residuals = saved
    g = g.astype(inputs.p.dtype)

    def contract(
        form: ModuleType, inputs: Inputs, attention: Attention, residuals: Residuals, g: Array
    ) -> tuple[Array, Array]:
        dr_dstates, dr_dscores = form.partials(call, inputs, attention, residuals)
        dstates = _chain(call, inputs, g * dr_dstates).astype(inputs.states.dtype)
        return dstates, jnp.sum(select(inputs.mask, g * dr_dscores, 0), axis=-1, keepdims=True)

    dstates, dscores = _by_form(call, contract, inputs, attention, residuals, g)
    dp = exponent_cotangent(inputs, residuals, g)
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
        return total(by_states + by_scores)

    # No loop over rows: reverse mode would keep its partial derivatives anyway, and jax 0.7 cannot transpose it.
    operands = (attention, residuals, tangents.states, tangents.scores)
    by_tokens = _by_form(call, contract, inputs, *operands, rows=over_rows)
    return (by_tokens + residuals.value * residuals.slope * tangents.p[None]).astype(inputs.states.dtype)


def _chain(call: Call, inputs: Inputs, dr_dstates: Array) -> Array:
    """From the derivative by log states to the one by the raw states, and exactly 0 at padding."""
    if call.scale_limit:
        raw = select(inputs.mask, inputs.states, 0).astype(inputs.p.dtype)
        dr_dstates = dr_dstates * SCALE_LIMITS[call.scale_limit].derivative(raw)
    return select(inputs.mask, dr_dstates, 0)
