"""The public functions: check -> canonical shape -> derivative rule -> shape of the caller.

The only custom derivatives of the project are here. ``_pool_vjp`` keeps the inputs and a few numbers per feature for
the backward pass; ``_pool_jvp`` is the same function for forward mode.
"""

import functools

import jax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Integer

from lnpool import _canonical, _compat
from lnpool._dispatch import BACKENDS, ForwardRule, ReverseRule, Saved
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


def _varying(call: Call, inputs: Inputs) -> Inputs:
    """Inside shard_map: all inputs vary over the union of the axes over which any varies.

    A custom rule must return cotangents of the type of its inputs, so a replicated p beside sharded states has to be
    made varying outside of the rule, where JAX transposes the cast to the sum over devices. Not so over the axis that
    splits the tokens: there sums meet inside of the rule, and the exponent and the result are the same on all devices.
    """
    axes = frozenset().union(*map(_compat.varying_axes, jax.tree.leaves(inputs)))
    varying = jax.tree.map(lambda x: _compat.make_varying(x, axes), inputs)
    return varying._replace(p=_compat.make_varying(inputs.p, axes - {call.axis_name}))


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
    log_output: bool = False,
    axis_name: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "*B D"]:
    r"""Attentive pooling with a learnable norm.

    .. math:: r = \left[ \frac{\sum_i (a_i h_i)^p}{\sum_i a_i^p} \right]^{1/p}, \qquad a = \mathrm{softmax}(z)

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
        log_bound: the caller's promise that ``|log h| <= log_bound``; with it and 1/2 <= p <= 30 one pass is enough.
        sharpen: True raises the attention to the power p, as the paper does: v = softmax(p z). False keeps it out,
            v = softmax(z) in r = [sum_i v_i h_i^p]^(1/p), which keeps the attention alive at p <= 0.
        log_output: return log r, never by way of r: -inf where r is 0, and with ``scale_limit="exp"`` (log h = x)
            signed states in and signed numbers out: unsharpened, attention pooling as p -> 0, the maximum as p -> inf.
        axis_name: inside ``jax.shard_map``, the mesh axis over which the T tokens of every row are split: each device
            pools its piece, sums and maxima meet by collectives, and all devices hold the result.
        implementation: "xla", "xla_jvp" (forward mode too), "reference", or None for the best that runs here.

    Returns:
        Pooled states ``[*B D]`` in the dtype of ``states``. A row with no token pools to 0 with zero gradient; a
        NaN or a negative h at a real token gives NaN in the outputs that it enters, and so does an infinite h unless
        p < 0, where it has no share. A score of -inf takes the attention from its token and one of +inf draws all of
        it; equal infinite scores share, as other equal scores do, so that a row of nothing but -inf is uniform.

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
    checked = _canonical.pooling(
        states,
        scores,
        p,
        mask=mask,
        scale_limit=scale_limit,
        log_states=log_states,
        log_bound=log_bound,
        sharpen=sharpen,
        log_output=log_output,
        axis_name=axis_name,
        implementation=implementation,
    )
    return _pooled(checked)


def pool_packed(
    states: Float[ArrayLike, "N D"],
    scores: Float[ArrayLike, " N"] | Float[ArrayLike, "N H"] | None = None,
    p: ArrayLike = 2.0,
    *,
    segment_ids: Integer[ArrayLike, " N"],
    num_segments: int,
    mask: Bool[ArrayLike, " N"] | None = None,
    scale_limit: str | None = None,
    log_states: bool = False,
    log_bound: float | None = None,
    sharpen: bool = True,
    log_output: bool = False,
    axis_name: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "S D"]:
    r"""``pool`` for texts that lie one behind the other, without padding: token i belongs to text ``segment_ids[i]``.

    Args:
        states: token states ``[N D]`` of all texts.
        scores: attention logits ``[N]``, or ``[N H]`` for H heads; the softmax is over the tokens of a text.
        p: as for ``pool``.
        segment_ids: sorted integers ``[N]``; tokens whose id is not in [0, S) belong to no text. They are checked to be
            sorted where they are known, that is outside of ``jax.jit``; unsorted ids give a wrong result.
        num_segments: the number S of texts, static.
        mask: boolean ``[N]``, True = real token.
        scale_limit: as for ``pool``.
        log_states: as for ``pool``.
        log_bound: as for ``pool``.
        sharpen: as for ``pool``.
        log_output: as for ``pool``.
        axis_name: inside ``jax.shard_map``, the mesh axis over which the tokens are split: an id means the same text on
            every device, and a text may lie on several. All devices hold the result. JAX 0.7 needs
            ``shard_map(..., check_vma=False)`` around packed texts.
        implementation: "xla", "xla_jvp", "pallas", or None for the best that runs here.

    Returns:
        Pooled states ``[S D]`` in the dtype of ``states``; a text without a token pools to 0 with zero gradient.

    Raises:
        TypeError: wrong dtype or kind of an argument.
        ValueError: wrong shape or value, or ids that are known not to be sorted.
        NotImplementedError: the named implementation cannot run here, or takes no packed texts.

    Example:
        >>> import jax.numpy as jnp, lnpool
        >>> states = jnp.array([[1.0], [3.0], [2.0], [5.0]])
        >>> r = lnpool.pool_packed(states, p=2.0, segment_ids=jnp.array([0, 0, 0, 2]), num_segments=3)
        >>> [round(float(x), 3) for x in r[:, 0]]
        [2.16, 0.0, 5.0]

    References:
        Wu et al., ACL 2020, as for ``pool``.
    """
    checked = _canonical.pooling(
        states,
        scores,
        p,
        mask=mask,
        scale_limit=scale_limit,
        log_states=log_states,
        log_bound=log_bound,
        sharpen=sharpen,
        log_output=log_output,
        axis_name=axis_name,
        implementation=implementation,
        segments=(segment_ids, num_segments),
    )
    return _pooled(checked)


def _pooled(checked: _canonical.Canonical) -> Array:
    """Run a checked call, and give the result the shape that the caller knows."""
    try:
        out = _run(checked.call, _varying(checked.call, checked.inputs))
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(_FORWARD_MODE_HINT) from error
    return out.reshape(*checked.batch, checked.features)
