"""The public functions beside the pooling: what attends, what each token contributes, and the scale limits."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from lnpool import _canonical, _check
from lnpool._formulas.scale import SCALE_LIMITS
from lnpool._xla import inspect


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
    shape, call, inputs = _canonical.attention(scores, p, mask=mask, sharpen=sharpen)
    return inspect.weights(call, inputs).reshape(shape).astype(inputs.tokens.scores.dtype)


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
    checked = _canonical.pooling(
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
    w = inspect.contributions(checked.call, checked.inputs)
    return w.reshape(*checked.batch, checked.tokens, checked.features).astype(checked.inputs.tokens.states.dtype)


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
    _check.floating("x", x)
    limit = SCALE_LIMITS[_check.one_of("scale_limit", method, SCALE_LIMITS)]
    x = jnp.asarray(x)
    return limit.log_states(x.astype(_canonical.compute_dtype(x))).astype(x.dtype)
