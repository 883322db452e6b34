"""The public functions: check -> canonical shape -> derivative rule -> shape of the caller.

The only custom derivatives of the project are here. ``_pool_vjp`` keeps the inputs and a few numbers per feature for
the backward pass; ``_pool_jvp`` is the same function for forward mode.
"""

import functools

import jax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from lnpool import _check, _compat, _exact, _rows, _weights
from lnpool._dispatch import BACKENDS, ForwardRule, ReverseRule, Saved
from lnpool._scale import SCALE_LIMITS
from lnpool._types import Call, Inputs

_FORWARD_MODE_HINT = (
    'lnpool.pool: this implementation has a hand-written reverse rule only; pass implementation="xla_jvp" for '
    "forward-mode derivatives (jvp, jacfwd)."
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pool_vjp(rule: ReverseRule, call: Call, inputs: Inputs) -> Array:
    return rule.value(call, inputs)


def _pool_vjp_forward(rule: ReverseRule, call: Call, inputs: Inputs) -> tuple[Array, tuple[Inputs, Saved]]:
    out, saved = rule.forward(call, inputs)
    return out, (inputs, saved)


def _pool_vjp_backward(rule: ReverseRule, call: Call, kept: tuple[Inputs, Saved], g: Array) -> tuple[Inputs]:
    return (rule.backward(call, *kept, g),)


_pool_vjp.defvjp(_pool_vjp_forward, _pool_vjp_backward)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pool_jvp(rule: ForwardRule, call: Call, inputs: Inputs) -> Array:
    return rule.value(call, inputs)


@_pool_jvp.defjvp
def _pool_jvp_rule(
    rule: ForwardRule, call: Call, primals: tuple[Inputs], tangents: tuple[Inputs]
) -> tuple[Array, Array]:
    out, saved = rule.forward(call, *primals)
    return out, rule.tangent(call, *primals, saved, *tangents)


@functools.partial(jax.jit, static_argnums=0)
def _run(call: Call, inputs: Inputs) -> Array:
    """Pooled states [B 1 *H K], differentiable by the rule of the backend."""
    run = BACKENDS[call.implementation].run
    if isinstance(run, ReverseRule):
        return _pool_vjp(run, call, inputs)
    if isinstance(run, ForwardRule):
        return _pool_jvp(run, call, inputs)
    return run(call, inputs)


def _varying(inputs: Inputs) -> Inputs:
    """Inside shard_map: all inputs vary over the union of the axes over which any varies.

    A custom rule must return cotangents of the type of its inputs, so a replicated p beside sharded states has to be
    made varying outside of the rule, where JAX transposes the cast to the sum over devices.
    """
    axes = frozenset().union(*map(_compat.varying_axes, jax.tree.leaves(inputs)))
    return jax.tree.map(lambda x: _compat.make_varying(x, axes), inputs)


def pool(
    states: Float[ArrayLike, "*B T D"],
    scores: Float[ArrayLike, "*B T"] | Float[ArrayLike, "*B T H"] | None = None,
    p: ArrayLike = 2.0,
    *,
    mask: Bool[ArrayLike, "*#B T"] | None = None,
    scale_limit: str | None = None,
    log_states: bool = False,
    log_bound: float | None = None,
    sharpen: bool = True,
    implementation: str | None = None,
) -> Float[Array, "*B D"]:
    r"""Attentive pooling with a learnable norm.

    .. math:: r = \Big[ \sum_i (a_i h_i)^p \Big/ \sum_i a_i^p \Big]^{1/p}, \qquad a = \mathrm{softmax}(z)

    elementwise over features, i over the tokens that ``mask`` keeps. p = 1 is attention pooling, uniform scores give
    the power mean (GeM), p -> inf tends to the strongest token, p = 0 is the geometric mean. Exact at every exponent,
    zeros and +-inf included (docs/math.md); sums run in float32 at least.

    Args:
        states: token states ``[*B T D]``: h >= 0; log h with ``log_states=True`` (a zero is -inf); or any real
            numbers with ``scale_limit``.
        scores: attention logits z ``[*B T]``, or ``[*B T H]`` for H heads, where H divides D and head k owns the k-th
            block of D/H features; None for uniform weights.
        p: the exponent, a number or an array ``[]``, ``[D]``, or ``[H]`` with heads; differentiable.
        mask: boolean ``[*#B T]``, True = real token. Padding may hold anything, NaN included, and changes nothing.
        scale_limit: name in ``SCALE_LIMITS``; maps raw states to log states inside the op, without a pass of its own.
        log_states: whether ``states`` holds log h: the fast road, one exponential an element and no logarithm.
        log_bound: the caller's promise that ``|log h| <= log_bound``; with it and p >= 1 the states are read once.
        sharpen: True raises the attention to the power p, as the paper does: v = softmax(p z). False keeps it out,
            v = softmax(z) in r = [sum_i v_i h_i^p]^(1/p), which keeps the attention alive at p <= 0.
        implementation: "xla", "xla_jvp" (forward mode too), "reference", or None for the best that runs here.

    Returns:
        Pooled states ``[*B D]`` in the dtype of ``states``. A row with no token pools to 0 with zero gradient; a
        negative h or a NaN at a real token gives NaN in the outputs that it enters.

    Raises:
        TypeError: wrong dtype or kind of an argument, or forward-mode differentiation of a reverse-only rule.
        ValueError: wrong shape or value.
        NotImplementedError: the named implementation cannot run here.

    Example:
        >>> import jax.numpy as jnp, lnpool
        >>> states = jnp.array([[1.0, 4.0], [3.0, 0.0], [2.0, 2.0]])
        >>> [round(float(r), 3) for r in lnpool.pool(states, jnp.array([0.0, 1.0, 0.0]), p=2.0)]
        [2.76, 1.459]

    References:
        Wu et al., "Attentive Pooling with Learnable Norms for Text Representation", ACL 2020.
    """
    checked = _check.check(
        states,
        scores,
        p,
        mask=mask,
        scale_limit=scale_limit,
        log_states=log_states,
        log_bound=log_bound,
        sharpen=sharpen,
        implementation=implementation,
    )
    try:
        out = _run(checked.call, _varying(checked.inputs))
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(_FORWARD_MODE_HINT) from error
    return out.reshape(*checked.batch, checked.features)


def attention_weights(
    scores: Float[ArrayLike, "..."],
    p: ArrayLike = 1.0,
    *,
    mask: Bool[ArrayLike, "..."] | None = None,
    sharpen: bool = True,
) -> Float[Array, "..."]:
    r"""What attends: the weights v of the power mean, ``softmax(p z)`` over tokens (``softmax(z)`` unsharpened).

    Args:
        scores: attention logits z ``[*B T]``; ``[*B T H]`` when ``p`` has shape ``[H]``.
        p: the exponent, a scalar, or ``[H]`` for scores of H heads.
        mask: boolean ``[*#B T]``, True = real token.
        sharpen: as in ``pool``.

    Returns:
        Weights in the shape and dtype of ``scores``; they sum to 1 over tokens, and are 0 at padding.

    Raises:
        TypeError: wrong dtype or kind of an argument.
        ValueError: wrong shape.

    Example:
        >>> import jax.numpy as jnp, lnpool
        >>> [round(float(v), 3) for v in lnpool.attention_weights(jnp.array([0.0, 1.0, 0.0]), p=2.0)]
        [0.107, 0.787, 0.107]
    """
    shape, call, inputs = _check.check_attention(scores, p, mask=mask, sharpen=sharpen)
    v = _rows.over_rows(functools.partial(_weights.weights, call), inputs)
    return v.reshape(shape).astype(inputs.scores.dtype)


def contributions(
    states: Float[ArrayLike, "*B T D"],
    scores: Float[ArrayLike, "*B T"] | Float[ArrayLike, "*B T H"] | None = None,
    p: ArrayLike = 2.0,
    *,
    mask: Bool[ArrayLike, "*#B T"] | None = None,
    scale_limit: str | None = None,
    log_states: bool = False,
    sharpen: bool = True,
) -> Float[Array, "*B T D"]:
    r"""The share of each token in each pooled feature, :math:`w_i = v_i (h_i / r)^p`.

    It is also the derivative :math:`\partial \log r / \partial \log h_i`. Arguments as for ``pool``.

    Returns:
        ``[*B T D]`` in the dtype of ``states``; sums to 1 over tokens, 0 at padding. Where r = 0 the zero states that
        made it so share the 1; a row with no token is 0.

    Raises:
        TypeError: wrong dtype or kind of an argument.
        ValueError: wrong shape or value.

    Example:
        >>> import jax.numpy as jnp, lnpool
        >>> states = jnp.array([[1.0, 4.0], [3.0, 0.0], [2.0, 2.0]])
        >>> [round(float(w), 3) for w in lnpool.contributions(states, p=2.0)[:, 0]]
        [0.071, 0.643, 0.286]
    """
    checked = _check.check(
        states,
        scores,
        p,
        mask=mask,
        scale_limit=scale_limit,
        log_states=log_states,
        log_bound=None,
        sharpen=sharpen,
        implementation=None,
    )
    w = _rows.over_rows(functools.partial(_exact.contributions, checked.call), checked.inputs)
    return w.reshape(*checked.batch, checked.tokens, checked.features).astype(checked.inputs.states.dtype)


def scale_limit(x: Float[ArrayLike, "*S"], method: str) -> Float[Array, "*S"]:
    """Raw states to log states, log h, by a named limit.

    ``pool(x, scale_limit=method)`` does the same inside the op without storing the result.

    Args:
        x: real numbers of any shape.
        method: name in ``SCALE_LIMITS``.

    Returns:
        log h in the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is no floating-point array.
        ValueError: unknown method.

    Example:
        >>> import jax.numpy as jnp, lnpool
        >>> [round(float(u), 3) for u in lnpool.scale_limit(jnp.array([-2.0, 0.0, 0.5]), "tanh")]
        [-0.964, 0.0, 0.462]

    References:
        Wu et al., ACL 2020, who name the step; the functions are the usual choices.
    """
    x = _check.floating("x", x)
    limit = SCALE_LIMITS[_check.one_of("scale_limit", method, SCALE_LIMITS)]
    return limit.log_states(x.astype(_check.compute_dtype(x))).astype(x.dtype)
