"""Dropout, and sums and weights over the real tokens of a text."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float


def dropout(x: Float[Array, "*S"], rate: float, rngs: nnx.Rngs | None) -> Float[Array, "*S"]:
    """Zero each element with probability `rate` and rescale the others; without `rngs` return `x`."""
    if rngs is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def detach(weights: Float[Array, "*S"], detached: bool) -> Float[Array, "*S"]:
    """Return the weights, as constants of every derivative where they are to be `detached`."""
    return jax.lax.stop_gradient(weights) if detached else weights


def zero_padding(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """Replace padded positions by 0, so that nothing can leak from them."""
    return jnp.where(mask[..., None], x, 0)


def masked_mean(x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B D"]:
    """Return the mean over the real tokens; 0 where a text has none."""
    total = zero_padding(x, mask).sum(axis=1, dtype=jnp.promote_types(x.dtype, jnp.float32))
    return total / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)


def attend(
    scores: Float[Array, "B T"], states: Float[Array, "B T D"], mask: Bool[Array, "B T"], detached: bool
) -> tuple[Float[Array, "B D"], dict[str, Float[Array, "B T"]]]:
    """Return r = sum_i a_i h_i with a = softmax(scores) over the real tokens, and a as `attention`."""
    weights = detach(masked_softmax(scores, mask), detached)
    return jnp.einsum("bt,btd->bd", weights, zero_padding(states, mask)), {"attention": weights}


def by_token(weights: Float[Array, "B T *H"]) -> Float[Array, "B T"]:
    """Return the weights of the tokens, averaged over heads, or features, where there are some."""
    return weights.reshape(*weights.shape[:2], -1).mean(axis=-1)


def masked_softmax(scores: Float[Array, "B T *F"], mask: Bool[Array, "B T"]) -> Float[Array, "B T *F"]:
    """Return weights that sum to 1 over the real tokens, and are 0 at padding and in a text without tokens."""
    mask = mask.reshape(mask.shape + (1,) * (scores.ndim - 2))
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=1), 0)
