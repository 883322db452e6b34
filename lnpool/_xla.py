"""The portable implementation: plain jax.numpy, fused by XLA on every platform. The fast default.

Two forms of the same function, chosen at run time from the exponents: the single pass of ``_bounded`` where it is as
accurate, ``_exact`` everywhere else. Gradients are the partial derivatives of either form, contracted with the
cotangent (reverse mode) or with the tangents (forward mode).
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import jax.numpy as jnp
from jax import Array, lax

from lnpool import _bounded, _exact
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs, Residuals
from lnpool._weights import select, total

T = TypeVar("T")


def _by_form(call: Call, apply: Callable[..., T], inputs: Inputs, *operands: object) -> T:
    """``apply(form, inputs, *operands)`` with the form that suits the exponents of this call."""
    fast = _bounded.applies(call, inputs)
    if fast is None:
        return apply(_exact, inputs, *operands)
    return lax.cond(fast, functools.partial(apply, _bounded), functools.partial(apply, _exact), inputs, *operands)


def forward(call: Call, inputs: Inputs) -> tuple[Array, Residuals]:
    """Pooled states [B 1 H K] in the dtype of the states, and the residuals."""
    residuals = _by_form(call, lambda form, inputs: form.forward(call, inputs), inputs)
    return residuals.value.astype(inputs.states.dtype), residuals


def backward(call: Call, inputs: Inputs, residuals: Residuals, g: Array) -> Inputs:
    """Cotangents of states, scores and p for the cotangent ``g`` [B 1 H K] of the pooled states."""
    g = g.astype(inputs.p.dtype)

    def contract(form: ModuleType, inputs: Inputs, residuals: Residuals, g: Array) -> tuple[Array, Array]:
        dr_dstates, dr_dscores = form.partials(call, inputs, residuals)
        dstates = _chain(call, inputs, g * dr_dstates)
        dscores = _sum_to(inputs.scores, select(inputs.mask, g * dr_dscores, 0))
        return dstates.astype(inputs.states.dtype), dscores.astype(inputs.scores.dtype)

    dstates, dscores = _by_form(call, contract, inputs, residuals, g)
    dp = _sum_to(inputs.p, g * residuals.value * residuals.slope)
    return Inputs(dstates, dscores, dp, None)


def tangent(call: Call, inputs: Inputs, residuals: Residuals, tangents: Inputs) -> Array:
    """Tangent of the pooled states [B 1 H K] for the tangents of states, scores and p."""

    def partials(form: ModuleType, inputs: Inputs, residuals: Residuals) -> tuple[Array, Array]:
        return form.partials(call, inputs, residuals)

    dr_dstates, dr_dscores = _by_form(call, partials, inputs, residuals)
    dstates, dscores = (
        select(inputs.mask, x, 0).astype(inputs.p.dtype) for x in (tangents.states, tangents.scores)
    )
    by_tokens = _chain(call, inputs, dr_dstates) * dstates + select(inputs.mask, dr_dscores, 0) * dscores
    out = total(by_tokens) + residuals.value * residuals.slope * tangents.p
    return out.astype(inputs.states.dtype)


def _chain(call: Call, inputs: Inputs, dr_dstates: Array) -> Array:
    """From the derivative by log states to the one by the raw states, and exactly 0 at padding."""
    if call.scale_limit:
        raw = select(inputs.mask, inputs.states, 0).astype(inputs.p.dtype)
        dr_dstates = dr_dstates * SCALE_LIMITS[call.scale_limit].derivative(raw)
    return select(inputs.mask, dr_dstates, 0)


def _sum_to(like: Array, x: Array) -> Array:
    """Sum ``x`` over the axes along which ``like`` was broadcast."""
    axes = tuple(axis for axis in range(x.ndim) if like.shape[axis] == 1 != x.shape[axis])
    return jnp.sum(x, axis=axes, keepdims=True)
