"""The two forms over a whole batch: which passes over the tokens each takes, and what it knows of every text.

Arrays of texts are [S 1 *H K], as wide as the result.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from lnpool import _compat
from lnpool._formulas import exact, single_pass
from lnpool._formulas.safe import at_least, cancelled, equal_by_rounding, log_ratio, select, sign_of, within
from lnpool._types import Call, Residuals
from lnpool._xla.cpu_blocks import Block, Parts
from lnpool._xla.texts import Texts
from lnpool._xla.upper import upper

Pair: TypeAlias = tuple[Array, Array]


class Pooled(NamedTuple):
    """What a form knows of every text [S 1 *H K]."""

    rho: Array  # log(r/reference)
    vanishes: Array  # whether r = 0 for want of a positive state, or for p <= 0 and a zero
    slope: Array  # d log r / d p
    reference: Array
    y_reference: Array
    log_w: Array
    single: Array  # whether the single pass was accurate; False from the exact form

    def residuals(self, call: Call) -> Residuals:
        """The result, and what the backward pass keeps."""
        value = single_pass.pooled(call.is_linear, self.reference, self.rho, call.log_output)
        value = jnp.where(self.vanishes, -jnp.inf if call.log_output else 0, value)
        gain = jnp.where(self.vanishes, 0, jnp.ones_like(value) if call.log_output else value)
        # A slope beyond float range belongs to an r that is too small for one: their product is 0.
        slope = jnp.where(self.vanishes | ((gain == 0) & jnp.isinf(self.slope)), 0, self.slope)
        known = (value, gain, slope, self.rho, self.reference, self.y_reference, self.log_w, self.single)
        return Residuals(*jnp.broadcast_arrays(*known))


# --- the single pass --------------------------------------------------------------------------------------------------


def _silent_d(texts: Texts, block: Block, reference: Array) -> Array:
    """d = log(h/reference) of a block; at padding it counts for nothing, but is finite."""
    call = texts.call
    if call.scale_limit:
        states = texts.states(block)
    else:
        states = select(block.mask, block.states.astype(texts.p.dtype), reference)
    return single_pass.silent_log_ratio(call.is_linear, states, reference)


def single(texts: Texts, want_slope: bool) -> Pooled:
    """The single pass, and in ``single`` where it was accurate."""
    call, p, attention = texts.call, single_pass.usable(texts.p), texts.attention
    fits = single_pass.in_range(texts.p)
    reference, nothing, smallest = upper(texts)
    of_rows = texts.rows(reference, attention.offset, attention.log_z)

    def compute(block: Block) -> Parts:
        reference, offset, log_z = of_rows
        z, log_v = texts.z_and_log_v(block, offset, log_z)
        d = _silent_d(texts, block, reference)
        return Parts(sums=single_pass.sums(p, d, z, log_v, call.sharpen)[: 1 + want_slope])

    by_product = not (call.is_linear and want_slope)
    heads = 3 * (texts.tokens.states.ndim == 4)  # whose features a product wants in one axis, which is a copy
    intermediates = 1 + want_slope + heads
    run = functools.partial(texts.over_tokens, compute, intermediates=intermediates, by_product=by_product)
    parts = _if_any(fits, run)
    w = parts.sums[0]
    # A NaN is as right here as it is in the exact form, and a negative state beside a zero is not nothing.
    nothing = nothing & ~jnp.isnan(w)
    smallest_sum = single_pass.smallest_sum(call.is_linear, reference, call.log_output)
    accurate = fits & (nothing | ~(w < smallest_sum))
    w = jnp.where(accurate & ~nothing, w, 1)
    rho = single_pass.log_mean(p, w)
    equal = jnp.zeros_like(nothing)
    if smallest is not None:  # of linear states: equal ones give themselves, to the bit
        smallest = jnp.where(accurate & ~nothing, smallest, reference)
        equal = smallest == reference
        rho = within(rho, jnp.log(smallest / reference), jnp.zeros_like(rho))
    slope = rho
    if want_slope:
        e = jnp.where(accurate & ~nothing, parts.sums[1], 0)
        slope = cancelled(single_pass.slope(p, w, e, rho, attention.mean_z, call.sharpen), equal)
        slope = jnp.where(nothing, 0, slope)
    y_reference = jnp.where(nothing, -jnp.inf, jnp.zeros_like(rho))
    return Pooled(rho, nothing, slope, reference, y_reference, jnp.log(w) + attention.log_z, accurate)


def _if_any(needed: Array, run: Callable[[], Parts]) -> Parts:
    """``run()`` if it is needed anywhere, else zeros."""
    like = jax.eval_shape(run)
    zeros = functools.partial(jax.tree.map, lambda x: _compat.new(x, x.shape, 0), like)
    return lax.cond(jnp.any(needed), run, zeros)


def relative_to_result(call: Call, of: Residuals) -> Residuals:
    """``of`` with r as the reference of linear states, where the single pass served: log(h/r) has one rounding less."""
    if not call.is_linear or call.log_output:
        return of
    at = of.single & (of.value > jnp.finfo(of.value.dtype).tiny) & jnp.isfinite(of.value)
    return of._replace(rho=cancelled(of.rho, at), reference=jnp.where(at, lax.stop_gradient(of.value), of.reference))


def single_pullback(
    texts: Texts, block: Block, of: Residuals, g: Array, offset: Array, log_z: Array, with_exact: bool
) -> Pair:
    """Cotangents of states and scores [B T *H K] for the cotangent ``g`` of the result; at padding finite.

    ``with_exact`` says that some of ``of`` may be of the exact form: there finite, in the derivatives too.
    """
    _, log_v = texts.z_and_log_v(block, offset, log_z)
    by_states, shares, d = _single_shares(texts, block, of, g, log_v, with_exact)
    by_scores = shares - lax.optimization_barrier(jnp.exp(log_v)) * (g * of.gain)
    if texts.call.is_linear:  # a state that is r has w = v: the scores of equal states get no gradient, to the bit
        by_scores = cancelled(by_scores, d == of.rho)
    return by_states, by_scores if texts.call.sharpen else by_scores / single_pass.usable(texts.p)


def _single_shares(
    texts: Texts, block: Block, of: Residuals, g: Array, log_v: Array, with_exact: bool
) -> tuple[Array, Array, Array]:
    """The cotangents of states, the shares w k of the tokens in the cotangent k of log r, and d."""
    call, p, k = texts.call, single_pass.usable(texts.p), g * of.gain
    d = _silent_d(texts, block, of.reference)
    if with_exact:
        d, rho, value = (jnp.where(of.single, x, 0) for x in (d, of.rho, of.value))
        of = of._replace(rho=rho, value=value)
    if call.is_linear and not call.log_output:
        states = select(block.mask, block.states.astype(p.dtype), 0)
        unbounded = (states == 0) & (p < 1)  # there 0 by convention, and computed of something finite
        by_states = g * single_pass.by_states(p, jnp.where(unbounded, of.rho, d), log_v, of.rho)
        by_states = jnp.where(unbounded | _vanishes(p, of), 0, by_states)
        return by_states, by_states * states, d
    if call.is_linear:
        root = single_pass.by_log_states(p / 2, d, log_v / 2, of.rho)
        v = lax.optimization_barrier(jnp.exp(log_v))
        return _over_states(p, texts.states(block), k, root, v, of), k * root * root, d
    shares = k * single_pass.by_log_states(p, d, log_v, of.rho)
    return shares, shares, d


def single_cotangents(texts: Texts, of: Residuals, g: Array) -> Pair:
    """Cotangents of states [B T *H K], and of scores [B T *H 1], where the single pass served every number.

    Those of the states are a result, which no loop has to keep in cache. They hold the shares of a token in the sum,
    which are added up from there: sum_k (w - v) k = sum_k w k - v sum_k k.
    """
    call, block = texts.call, texts.tokens
    _, log_v = texts.z_and_log_v(block, texts.attention.offset, texts.attention.log_z)
    by_states, shares, _ = _single_shares(texts, block, relative_to_result(call, of), g, log_v, with_exact=False)
    k, v = g * of.gain, jnp.exp(log_v)
    added = functools.partial(jnp.sum, axis=-1, keepdims=True)
    of_v = v * added(k)
    if call.is_linear:  # where all states are r, w = v: the value is 0 to the bit, and has a derivative
        equal = jnp.where(of.rho == 0, 1, jnp.zeros_like(k))
        shares = shares - lax.stop_gradient(shares * equal)
        k_of_equal = lax.stop_gradient(added(k * equal))
        of_v = v * (added(k) - k_of_equal) + (v - lax.stop_gradient(v)) * k_of_equal
    by_scores = added(select(block.mask, shares, 0)) - of_v  # of log states this is the sum of a result
    return select(block.mask, by_states, 0), by_scores if call.sharpen else by_scores / single_pass.usable(texts.p)


def _vanishes(p: Array, of: Residuals) -> Array:
    """Where r = 0 for want of a positive state; an r that is merely too small for a float has a derivative."""
    return (of.value == 0) & ((p <= 0) | jnp.isinf(of.y_reference))


def _over_states(p: Array, states: Array, k: Array, root: Array, v: Array, of: Residuals) -> Array:
    """The cotangent of h where the result is log r: r itself may be no float, and w may be none where w/h is one.

    ``root`` is the square root of w. At a zero the cotangent is v/r for p = 1, and 0 else.
    """
    zero, one = states == 0, (p == 1) & ~jnp.isneginf(of.value)
    at_zero = jnp.where(zero & one, v * k * jnp.exp(-jnp.where(one, of.value, 0)), 0)
    ratio = root / jnp.sqrt(jnp.where(zero, 1, states))  # the derivative of w/h would hold 1/h^2, which may be no float
    return jnp.where(zero, at_zero, k * ratio * ratio)


# --- the exact form ---------------------------------------------------------------------------------------------------


class Elements(NamedTuple):
    """Per token and feature."""

    d: Array  # log(h/reference), something finite at a zero
    zero: Array
    keep: Array  # not a zero, and no padding
    z: Array
    log_v: Array  # finite at padding


def elements(texts: Texts, block: Block, reference: Array, offset: Array, log_z: Array) -> Elements:
    """What the exact form knows of each token and feature."""
    states = texts.states(block)
    zero = states == (0 if texts.call.is_linear else -jnp.inf)
    z, log_v = texts.z_and_log_v(block, offset, log_z)
    keep = ~zero if block.mask is None else ~zero & block.mask
    d = log_ratio(texts.call.is_linear, states, zero, reference)
    if texts.call.scale_limit:  # each pass computes the limit anew
        d = equal_by_rounding(d, reference)
    return Elements(d, zero, keep, z, select(block.mask, log_v, 0))


def _exact_references(texts: Texts, p: Array) -> tuple[Array, Array]:
    """The references of the states and of the exponents, -+inf for a text without a positive state. No gradient."""
    sign = sign_of(p)
    linear, attention = texts.call.is_linear, texts.attention

    def of_states(block: Block) -> Parts:
        states = texts.states(block)
        zero = states == (0 if linear else -jnp.inf)
        keep = ~zero if block.mask is None else ~zero & block.mask
        return Parts(maxima=lax.stop_gradient(jnp.where(keep, sign * states, -jnp.inf)))

    reference = lax.stop_gradient(sign) * texts.over_tokens(of_states).maxima
    reference = jnp.where(jnp.isinf(reference), 1 if linear else 0, reference)
    if linear:  # where it is negative, so are all others, and no ratio would show it
        reference = jnp.where(reference < 0, jnp.nan, reference)
    of_rows = texts.rows(reference, attention.offset, attention.log_z)

    def of_exponents(block: Block) -> Parts:
        of = elements(texts, block, *of_rows)
        y, scale = exact.exponents(p, of.d, of.z, texts.call.sharpen)
        return Parts(maxima=lax.stop_gradient(jnp.where(of.keep, sign_of(scale) * y, -jnp.inf)))

    sign = sign_of(p if texts.call.sharpen else jnp.ones_like(p))
    return reference, lax.stop_gradient(sign) * texts.over_tokens(of_exponents).maxima


def exponents_of_w(texts: Texts, p: Array, of: Elements, y_reference: Array) -> Array:
    """The exponents of W."""
    y, scale = exact.exponents(p, of.d, of.z, texts.call.sharpen)
    return exact.relative(p, scale, y, y_reference, texts.call.is_linear)


def exact_form(texts: Texts, want_slope: bool) -> Pooled:
    """The exact form; two passes find the references, one sums, and one more takes the slope."""
    call, p, attention = texts.call, exact.usable(texts.p, texts.call.log_output), texts.attention
    reference, y_reference = _exact_references(texts, p)
    of_rows = texts.rows(reference, attention.offset, attention.log_z, y_reference)

    def compute(block: Block) -> Parts:
        *known, y_reference = of_rows
        of = elements(texts, block, *known)
        terms = jnp.where(of.keep, jnp.exp(exponents_of_w(texts, p, of, y_reference)), 0)
        return Parts(sums=(terms, select(block.mask, exact.mean_terms(p, of.d, of.zero, of.log_v), 0)))

    w, mean = texts.over_tokens(compute, intermediates=2).sums
    log_w = jnp.log(at_least(w, 1))
    rho, vanishes = exact.log_mean(p, mean, log_w, attention.log_z, y_reference, call.sharpen)
    slope = _exact_slope(texts, jnp.where(vanishes, 1, p), reference, y_reference, log_w, rho) if want_slope else rho
    slope = jnp.where(jnp.isinf(texts.p), 0, slope)
    return Pooled(rho, vanishes, slope, reference, y_reference, log_w, jnp.zeros_like(vanishes))


def _shares(texts: Texts, p: Array, of: Elements, y_reference: Array, log_w: Array, rho: Array) -> exact.Shares:
    token_log_w = exponents_of_w(texts, p, of, y_reference) - log_w
    return exact.shares(p, of.d, of.zero, of.keep, of.log_v, token_log_w, rho)


def _exact_slope(texts: Texts, *known: Array) -> Array:
    attention = texts.attention
    of_rows = texts.rows(*known, attention.offset, attention.log_z, attention.mean_z)

    def compute(block: Block) -> Parts:
        p, reference, y_reference, log_w, rho, offset, log_z, mean_z = of_rows
        of = elements(texts, block, reference, offset, log_z)
        shares = _shares(texts, p, of, y_reference, log_w, rho)
        terms = exact.slope_terms(p, shares, of.log_v, of.z, mean_z, texts.call.sharpen)
        return Parts(sums=select(block.mask, terms, 0))

    return texts.over_tokens(compute, intermediates=2).sums


def exact_pullback(texts: Texts, block: Block, of: Residuals, g: Array, offset: Array, log_z: Array) -> Pair:
    """Cotangents of states and scores [B T *H K] for the cotangent ``g`` of the result; at padding finite."""
    call, p, k = texts.call, exact.usable(texts.p, texts.call.log_output), g * of.gain
    tokens = elements(texts, block, lax.stop_gradient(of.reference), offset, log_z)
    shares = _shares(texts, p, tokens, lax.stop_gradient(of.y_reference), of.log_w, of.rho)
    if call.is_linear and not call.log_output:
        by_states = jnp.where(_vanishes(p, of), 0, g) * exact.by_states(p, shares, tokens.zero, tokens.log_v)
    elif call.is_linear:
        root = exact.by_log_states(p, shares, tokens.keep, tokens.log_v, power=0.5)
        by_states = _over_states(p, texts.states(block), k, root, shares.v, of)
    else:
        by_states = k * exact.by_log_states(p, shares, tokens.keep, tokens.log_v)
    return by_states, k * (shares.difference if call.sharpen else shares.difference_over_p)
