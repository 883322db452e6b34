"""Flax NNX modules around ``lnpool.pool``: the attention scorer, and the pooling with its own trainable exponent."""

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

try:
    from flax import nnx
except ModuleNotFoundError as error:  # the functional op needs no flax
    raise ModuleNotFoundError('lnpool.nn needs flax: pip install "lnpool[nn]"', name=error.name) from error

import lnpool
from lnpool import _check
from lnpool._types import Implementation
from lnpool.exponent import EXPONENTS


class AttentionScores(nnx.Module):
    r"""Additive attention logits, :math:`z_i = q^\top \tanh(V h_i + b)`, one per token and head.

    Args:
        features: size D of a token state.
        hidden: size of the hidden layer; D where None.
        heads: number of heads H; scores have a last axis H only when H > 1.
        dtype: dtype of the computation; that of the states where None.
        param_dtype: dtype of the parameters.
        rngs: random number generators for the parameters.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a size is below 1.

    Example:
        >>> import jax.numpy as jnp, lnpool.nn
        >>> from flax import nnx
        >>> lnpool.nn.AttentionScores(8, heads=2, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8))).shape
        (2, 5, 2)

    References:
        Bahdanau et al. 2015; in the form of Yang et al., "Hierarchical Attention Networks", NAACL 2016.
    """

    def __init__(
        self,
        features: int,
        hidden: int | None = None,
        *,
        heads: int = 1,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.features = _check.positive_integer("features", features)
        hidden = features if hidden is None else _check.positive_integer("hidden", hidden)
        self.heads = _check.positive_integer("heads", heads)
        _check.float_dtype("dtype", dtype)
        _check.float_dtype("param_dtype", param_dtype)
        _check.instance("rngs", rngs, nnx.Rngs, "nnx.Rngs(0)")
        self.hidden = nnx.Linear(features, hidden, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.query = nnx.Linear(hidden, heads, use_bias=False, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self, states: Float[Array, "*B T D"], *, mask: Bool[Array, "*#B T"] | None = None
    ) -> Float[Array, "*B T"] | Float[Array, "*B T H"]:
        """Score token states.

        Args:
            states: ``[*B T D]``.
            mask: boolean ``[*#B T]``, True = real token; what padding holds never enters a gradient.

        Returns:
            Scores ``[*B T]``, or ``[*B T H]`` for more than one head.

        Raises:
            TypeError: wrong dtype of an argument.
            ValueError: wrong shape of an argument.
        """
        _check.features_of("states", states, self.features)
        _check.mask(mask, states.shape[:-1])
        if mask is not None:
            states = jnp.where(mask[..., None], states, 0)
        scores = self.query(jnp.tanh(self.hidden(states)))
        return scores if self.heads > 1 else scores[..., 0]


class LearnedNormPool(nnx.Module):
    r"""Attentive pooling with a learnable norm: token states ``[*B T D]`` to one vector ``[*B D]``.

    .. math:: r = \left[ \frac{\sum_i (a_i h_i)^p}{\sum_i a_i^p} \right]^{1/p}

    The trainable ``rho`` gives p through ``exponent``; give it its own learning rate and no weight decay.

    Args:
        features: size D of a token state.
        heads: number H of attention heads; head k pools the k-th block of D/H features.
        p_init: exponent at the start; within the range of ``exponent``.
        exponent: a name in ``lnpool.exponent.EXPONENTS``: "softplus" (p > 1), "positive" (p > 0), "bounded"
            (0.05 < p < 16), "raw" (any real) or "fixed" (not trained).
        per: one exponent per "layer", "head" or "feature".
        scale_limit: how signed states become non-negative, a name in ``lnpool.SCALE_LIMITS``; None when they are.
        score: "additive" attention, or None for uniform weights unless the caller passes scores.
        hidden: hidden size of the scorer; D where None.
        sharpen: whether the attention takes part in the power, as in the paper.
        log_output: return log r, as in ``lnpool.pool``. With ``scale_limit="exp"`` and ``sharpen=False`` signed states
            become signed numbers, from attention pooling (p -> 0) to the maximum (p -> inf);
            ``exponent="positive"`` learns where between.
        dtype: dtype in which states enter the scorer and the pooling, and of the result; that of the states where
            None. Sums inside the pooling run in float32 at least.
        param_dtype: dtype of the scorer's parameters; rho is float32 always.
        implementation: as in ``lnpool.pool``.
        rngs: random number generators for the parameters.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: heads that do not divide the features, an unknown name, p_init out of range.

    Example:
        >>> import jax.numpy as jnp, lnpool.nn
        >>> from flax import nnx
        >>> pool = lnpool.nn.LearnedNormPool(8, rngs=nnx.Rngs(0))
        >>> pool(jnp.ones((2, 5, 8))).shape, float(pool.p)
        ((2, 8), 2.0)

        Signed numbers in and out, close to attention pooling at first, on the way to the maximum as p grows:

        >>> signed = dict(scale_limit="exp", log_output=True, sharpen=False, exponent="positive", p_init=0.01)
        >>> pool = lnpool.nn.LearnedNormPool(1, score=None, **signed, rngs=nnx.Rngs(0))
        >>> [round(float(pool(jnp.array([[-2.0], [1.0]]))[0]), 2), round(float(pool.p), 4)]
        [-0.49, 0.01]

    References:
        Wu et al., ACL 2020; the parametrisation p = 1 + softplus(rho): Gulcehre et al., ECML 2014.
    """

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        p_init: float = 2.0,
        exponent: Literal["softplus", "positive", "bounded", "raw", "fixed"] = "softplus",
        per: Literal["layer", "head", "feature"] = "layer",
        scale_limit: str | None = "tanh",
        score: Literal["additive"] | None = "additive",
        hidden: int | None = None,
        sharpen: bool = True,
        log_output: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        implementation: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.features = _check.positive_integer("features", features)
        self.heads = _check.positive_integer("heads", heads)
        _check.divides(features, heads)
        _check.one_of("per", per, _SHAPES)
        _check.one_of("exponent", exponent, EXPONENTS)
        if scale_limit is not None:
            _check.one_of("scale_limit", scale_limit, lnpool.SCALE_LIMITS)
        if score is not None:
            _check.one_of("score", score, ("additive",))
        self.exponent = exponent
        self.scale_limit = scale_limit
        self.sharpen = _check.boolean("sharpen", sharpen)
        self.log_output = _check.boolean("log_output", log_output)
        if implementation is not None:
            _check.one_of("implementation", implementation, get_args(Implementation))
        _check.float_dtype("dtype", dtype)
        _check.instance("rngs", rngs, nnx.Rngs, "nnx.Rngs(0)")
        self.dtype = dtype
        self.implementation = implementation
        self.scorer = (
            AttentionScores(features, hidden, heads=heads, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            if score == "additive"
            else None
        )
        _check.initial_exponent(p_init, exponent, EXPONENTS[exponent].interval)
        rho = EXPONENTS[exponent].rho(float(p_init))
        self.rho = nnx.Param(jnp.full(_SHAPES[per](features, heads), rho, jnp.float32))

    @property
    def p(self) -> Float[Array, ""] | Float[Array, "P"]:
        """The exponent ``[]``, ``[H]`` or ``[D]``, float32."""
        return EXPONENTS[self.exponent].p(self.rho[...])

    def __call__(
        self,
        states: Float[Array, "*B T D"],
        *,
        mask: Bool[Array, "*#B T"] | None = None,
        scores: Float[Array, "*B T"] | Float[Array, "*B T H"] | None = None,
        return_weights: bool = False,
    ) -> Float[Array, "*B D"] | tuple[Float[Array, "*B D"], Float[Array, "..."]]:
        """Pool token states.

        Args:
            states: ``[*B T D]``, signed with a ``scale_limit``, else non-negative.
            mask: boolean ``[*#B T]``, True = real token.
            scores: attention logits ``[*B T]`` or ``[*B T H]`` in place of the module's own.
            return_weights: also return the attention weights.

        Returns:
            Pooled states ``[*B D]``, or their logarithm; with ``return_weights`` also the weights of the power
            mean: ``[*B T]``, ``[*B T H]`` with heads, ``[*B T D]`` with one exponent per feature.

        Raises:
            TypeError: wrong dtype of an argument.
            ValueError: wrong shape of an argument.
        """
        _check.features_of("states", states, self.features)
        _check.mask(mask, states.shape[:-1])
        if self.dtype is not None:
            states = states.astype(self.dtype)
        if scores is None and self.scorer is not None:
            scores = self.scorer(states, mask=mask)
        p = self.p
        pooled = lnpool.pool(
            states,
            scores,
            p,
            mask=mask,
            scale_limit=self.scale_limit,
            sharpen=self.sharpen,
            log_output=self.log_output,
            implementation=self.implementation,
        )
        return (pooled, self._weights(states, scores, p, mask)) if return_weights else pooled

    def _weights(self, states: Array, scores: Array | None, p: Array, mask: Array | None) -> Array:
        if scores is None:  # in the precision of all other scores
            scores = jnp.zeros(states.shape[:-1], jnp.promote_types(states.dtype, jnp.float32))
        if scores.ndim < states.ndim and p.ndim == 0:
            return lnpool.attention_weights(scores, p, mask=mask, sharpen=self.sharpen)
        scores = scores if scores.ndim == states.ndim else scores[..., None]
        heads = max(p.size, scores.shape[-1])
        scores = jnp.repeat(scores, heads // scores.shape[-1], axis=-1)
        return lnpool.attention_weights(scores, jnp.broadcast_to(p, (heads,)), mask=mask, sharpen=self.sharpen)


_SHAPES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "layer": lambda features, heads: (),
    "head": lambda features, heads: (heads,),
    "feature": lambda features, heads: (features,),
}
