"""Poolers with a power mean: learned norms, the generalised mean, several power means, and the formula as printed.

Sources: Wu et al., "Attentive Pooling with Learnable Norms for Text Representation" (ACL 2020); GeM of Radenovic et al.
(TPAMI 2019), here with a mask; Rueckle et al., "Concatenated Power Mean Word Embeddings" (2018).
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

import lnpool
import lnpool.nn
from experiments.base.contracts import Outputs
from experiments.base.options import Interval
from experiments.layers.masked import detach, masked_softmax

Exponent: TypeAlias = Literal["softplus", "positive", "bounded", "raw", "fixed"]
ScaleLimit: TypeAlias = Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs", "exp"]

LOGS = "exp"
"""The scale limit that takes states as logarithms of what has powers; the result is a logarithm too: signed numbers."""


@dataclasses.dataclass(frozen=True)
class NormOptions:
    """A power mean of limited states."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 2.0
    """The exponent at the start."""
    exponent: Exponent = "softplus"
    """How p is parametrised: softplus keeps p > 1, positive p > 0, fixed does not train it."""
    scale_limit: ScaleLimit = "tanh"
    """The map from signed states to the non-negative states that have powers; abs limits nothing, exp takes states as
    logarithms and gives a logarithm."""
    centre: bool = True
    """Whether the result of neutral states, x = 0, is subtracted (1 with tanh): the classifier reads signed numbers."""


class Norm(nnx.Module):
    """A pooler around a `LearnedNormPool` that is made from its options; a text without tokens gives 0."""

    detached: bool = False
    """Whether the attention is a constant of every derivative; an analysis sets it."""

    def __init__(self, options: NormOptions, features: int, *, rngs: nnx.Rngs, **more: Any):
        chosen = dataclasses.asdict(options) | more
        self.centre, self.scale_limit = chosen.pop("centre"), options.scale_limit
        self.in_logs = self.scale_limit == LOGS
        self.pool = lnpool.nn.LearnedNormPool(features, rngs=rngs, log_output=self.in_logs, **chosen)
        self.features = features

    @property
    def p(self) -> Array:
        """The exponent: one number, or one a head or a feature."""
        return self.pool.p

    def scores(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T *H"] | None:
        """Return the scores z of the tokens; None where all weigh the same."""
        return None if self.pool.scorer is None else self.pool.scorer(states, mask=mask)

    def weights(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Float[Array, "B T *H"] | None = None
    ) -> Outputs:
        """Return `attention` softmax(z), `effective` softmax(p z) and `contribution` [B T D], the share in the result.

        The first two are absent where all tokens weigh the same. `scores` take the place of z.
        """
        scores = self.scores(states, mask) if scores is None else scores
        shares = lnpool.contributions(
            states, scores, self.p, mask=mask, scale_limit=self.scale_limit, sharpen=self.pool.sharpen
        )
        if scores is None:
            return {"contribution": shares}
        _, effective = self.pool(states, mask=mask, scores=scores, return_weights=True)
        return {
            "attention": lnpool.attention_weights(scores, mask=mask),
            "effective": effective,
            "contribution": shares,
        }

    def mean(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Float[Array, "B T *H"] | None
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T *V"]]:
        """Return the power mean of the limited states, and the effective weights, of every feature if p is."""
        scores = None if scores is None else detach(scores, self.detached)
        pooled, attention = self.pool(states, mask=mask, scores=scores, return_weights=True)
        return pooled, attention

    def __call__(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Float[Array, "B T *H"] | None = None
    ) -> tuple[Float[Array, "B D"], Outputs]:
        """Return the pooled states, the attention and the exponent; `scores` take the place of its own."""
        pooled, attention = self.mean(states, mask, self.scores(states, mask) if scores is None else scores)
        if self.in_logs:
            pooled = jnp.where(mask.any(axis=1, keepdims=True), pooled, 0)
        elif self.centre:
            neutral = jnp.exp(lnpool.scale_limit(jnp.zeros((), pooled.dtype), self.scale_limit))
            pooled = jnp.where(mask.any(axis=1, keepdims=True), pooled - neutral, 0)
        return pooled, {"attention": attention, "p": self.p}


@dataclasses.dataclass(frozen=True)
class LearnedNormOptions(NormOptions):
    """r = [sum_i softmax(p z)_i h_i^p]^(1/p) with a trainable p."""

    per: Literal["layer", "head", "feature"] = "layer"
    """Whether one p serves the layer, or each head or feature has its own."""
    heads: Annotated[int, Interval("[1, 64]")] = 1
    """Number of attention heads; it divides the features."""
    hidden: Annotated[int, Interval("[1, 4096]")] = 128
    """Hidden units of the additive attention."""
    score: Literal["additive", "none"] = "additive"
    """How tokens are scored; none gives all the same weight (the power mean)."""
    sharpen: bool = True
    """Whether the attention weight is raised to the power p together with the state, as in the paper."""


class LearnedNorm(Norm):
    """`lnpool.nn.LearnedNormPool`; shows its attention and its exponent."""

    Options: ClassVar[type] = LearnedNormOptions

    def __init__(self, options: LearnedNormOptions, features: int, *, rngs: nnx.Rngs):
        if options.per == "head" and options.score == "none":
            raise ValueError("per head needs the scores of heads, and score none has none: choose score additive")
        super().__init__(options, features, rngs=rngs, score=None if options.score == "none" else options.score)


@dataclasses.dataclass(frozen=True)
class LogLearnedNormOptions(LearnedNormOptions):
    """log r = (1/p) log sum_i softmax(z)_i exp(p x_i) of the states x, with a trainable p."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 1.0
    """The exponent at the start."""
    exponent: Exponent = "positive"
    """How p is parametrised: positive keeps p > 0, softplus p > 1, fixed does not train it."""
    scale_limit: ScaleLimit = "exp"
    """The map from signed states to the non-negative states that have powers; exp takes states as logarithms and gives
    a logarithm."""
    sharpen: bool = False
    """Whether the attention weight is raised to the power p together with the state, as in the paper."""


class LogLearnedNorm(LearnedNorm):
    """The learned norm of exp(x), as a logarithm: attention pooling at p = 0, the maximum at p = inf."""

    Options: ClassVar[type] = LogLearnedNormOptions


@dataclasses.dataclass(frozen=True)
class PowerMeanOptions(NormOptions):
    """The power mean: all tokens weigh the same."""

    p_init: Annotated[float, Interval("[-64, 64]")] = 3.0
    """The exponent at the start."""
    per: Literal["layer", "feature"] = "layer"
    """Whether one p serves the layer, or each feature has its own."""


class PowerMean(Norm):
    """r = [sum_i h_i^p / n]^(1/p) over the n real tokens; a text without tokens gives 0."""

    Options: ClassVar[type] = PowerMeanOptions

    def __init__(self, options: PowerMeanOptions, features: int, *, rngs: nnx.Rngs):
        super().__init__(options, features, rngs=rngs, score=None)


@dataclasses.dataclass(frozen=True)
class NaiveNormOptions(NormOptions):
    """r = [sum_i (a_i h_i)^p / sum_i a_i^p]^(1/p) by powers of numbers."""


class NaiveNorm(Norm):
    """The parameters of `learned_norm`, without its re-formulation: a_i^p soon falls below what float32 holds.

    A text without tokens gives 0. What is not finite otherwise is left so, because that is what is measured.
    """

    Options: ClassVar[type] = NaiveNormOptions

    def __init__(self, options: NaiveNormOptions, features: int, *, rngs: nnx.Rngs):
        super().__init__(options, features, rngs=rngs, score=None)
        self.scorer = lnpool.nn.AttentionScores(features, rngs=rngs)

    def scores(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
        """Return the scores z of the tokens."""
        return self.scorer(states, mask=mask)

    def mean(
        self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"], scores: Any
    ) -> tuple[Float[Array, "B D"], Float[Array, "B T"]]:
        """Return the power mean of the limited states, and the attention."""
        some = mask.any(axis=1, keepdims=True)
        states = jnp.where(mask[..., None], states, 1)  # padding has weight 0; its powers must have derivatives
        attention = detach(masked_softmax(scores, mask), self.detached)
        a, p = jnp.where(some, attention, 1)[..., None], self.pool.p
        h = jnp.exp(lnpool.scale_limit(states, self.scale_limit))
        pooled = (jnp.sum((a * h) ** p, axis=1) / jnp.sum(a**p, axis=1)) ** (1 / p)
        return jnp.where(some, jnp.log(pooled) if self.in_logs else pooled, 0), attention


EXPONENTS = (-jnp.inf, 1.0, 2.0, 3.0, jnp.inf)


@dataclasses.dataclass(frozen=True)
class PowerMeansOptions:
    """Smallest state, means with the exponents 1, 2 and 3, and largest state."""

    scale_limit: Literal["tanh", "sigmoid", "softplus", "relu_clip", "abs"] = "tanh"
    """The map from signed states to the non-negative states that have powers; the paper takes complex powers."""


class PowerMeans(nnx.Module):
    """r = [r_p for p in (-inf, 1, 2, 3, inf)] with r_p = [sum_i h_i^p / n]^(1/p); a text without tokens gives 0."""

    Options: ClassVar[type] = PowerMeansOptions

    def __init__(self, options: PowerMeansOptions, features: int, *, rngs: nnx.Rngs):
        self.scale_limit = options.scale_limit
        self.features = len(EXPONENTS) * features

    def __call__(self, states: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> tuple[Float[Array, "B E"], Outputs]:
        """Return the means, one block of features an exponent."""
        means = [lnpool.pool(states, p=p, mask=mask, scale_limit=self.scale_limit) for p in EXPONENTS]
        return jnp.concatenate(means, axis=1), {}
