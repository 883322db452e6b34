"""Self-attention of a text: full, and three sparse forms whose memory falls with the number of keys that are read.

All take queries, keys and values [B T N H] and a mask [B T], True at real tokens, and return [B T N H]: token i reads
the values of some tokens j, weighed by softmax_j(q_i . k_j / sqrt(H)), in every head by itself.

| function | token i reads token j where | keys a token |
| --- | --- | --- |
| `full` | always | T |
| `local` | i and j are at most `window` apart | 2 window + 1 |
| `atrous` | i - j is a multiple of `rate` | T / rate |
| `sparse` | either of both holds, each j counts once | the sum, less those in both |

Everywhere j must be a real token, and j <= i where `causal`. A token that may read nothing gets 0, and gradients of 0.
Masked keys and values count for nothing, but must be finite. bfloat16 is summed in float32.

No sparse form holds scores of all pairs. Tokens are laid out in groups, a group of queries [B G L N H] beside the keys
that any of them may read [B G S N H], so that scores are [B G N L S]: blocks of `window` tokens beside the blocks
before and after them, and the residue classes of positions modulo `rate`.

Sources: local and atrous attention after Su (2019), "Sparse self-attention", and, as the strided pattern and with one
softmax over both, Child, Gray, Radford and Sutskever (2019), arXiv 1904.10509, section 4.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

Attention = Callable[..., Float[Array, "B T N H"]]


class Layout(NamedTuple):
    """How the tokens of a text lie in groups."""

    queries: Callable[[Array], Array]
    """[B T ...] -> [B G L ...], 0 beyond the text."""
    keys: Callable[[Array], Array]
    """[B T ...] -> [B G S ...], 0 beyond the text."""
    tokens: Callable[[Array], Array]
    """[B G L ...] -> [B T ...], what `queries` has done, undone."""
    reads: Callable[[Array, Array], Array | bool]
    """Whether a query at one position reads the key at another one."""


def full(
    q: Float[Array, "B L N H"],
    k: Float[Array, "B T N H"],
    v: Float[Array, "B T N H"],
    mask: Bool[Array, "B T"],
    *,
    causal: bool = False,
) -> Float[Array, "B L N H"]:
    """Read every token: `jax.nn.dot_product_attention`, with 0 where there is none to read.

    The queries may be those of another text, unless it is causal.
    """
    read = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None], is_causal=causal)
    some = jnp.cumsum(mask, axis=1) > 0 if causal else mask.any(axis=1, keepdims=True)
    return jnp.where(some[..., None, None], read, 0)


def local(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T N H"],
    v: Float[Array, "B T N H"],
    mask: Bool[Array, "B T"],
    *,
    window: int,
    causal: bool = False,
) -> Float[Array, "B T N H"]:
    """Read the tokens at most `window` (1 or more) places away. The largest array is B N T (3 window), causal 2."""
    return _attend([_blocks(q.shape[1], window, causal)], q, k, v, mask, causal)


def atrous(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T N H"],
    v: Float[Array, "B T N H"],
    mask: Bool[Array, "B T"],
    *,
    rate: int,
    causal: bool = False,
) -> Float[Array, "B T N H"]:
    """Read every `rate`-th token (1 or more), before and after. The largest array is B N T (T / rate)."""
    return _attend([_classes(q.shape[1], rate)], q, k, v, mask, causal)


def sparse(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T N H"],
    v: Float[Array, "B T N H"],
    mask: Bool[Array, "B T"],
    *,
    window: int,
    rate: int,
    causal: bool = False,
) -> Float[Array, "B T N H"]:
    """Read what `local` and `atrous` read, in one softmax. The largest arrays are theirs."""
    classes = _classes(q.shape[1], rate)
    beyond = classes._replace(reads=lambda i, j: jnp.abs(i - j) > window)
    return _attend([_blocks(q.shape[1], window, causal), beyond], q, k, v, mask, causal)


def _blocks(length: int, window: int, causal: bool) -> Layout:
    """Blocks of `window` tokens; the keys of a block are those of its neighbours too, where there are any."""
    width = min(window, length)
    count = -(-length // width)

    def queries(x: Array) -> Array:
        return _padded(x, count * width).reshape(x.shape[0], count, width, *x.shape[2:])

    def keys(x: Array) -> Array:
        if count == 1:
            return queries(x)
        around = jnp.pad(queries(x), [(0, 0), (1, 1), *[(0, 0)] * (x.ndim - 1)])
        near = [around[:, shift : shift + count] for shift in range(2 if causal else 3)]
        return jnp.concatenate(near, axis=2)

    def tokens(x: Array) -> Array:
        return x.reshape(x.shape[0], count * width, *x.shape[3:])[:, :length]

    return Layout(queries, keys, tokens, lambda i, j: jnp.abs(i - j) <= window)


def _classes(length: int, rate: int) -> Layout:
    """The tokens whose positions leave the same remainder: they read one another, and nothing else."""
    rate = min(rate, length)
    count = -(-length // rate)

    def queries(x: Array) -> Array:
        return _padded(x, count * rate).reshape(x.shape[0], count, rate, *x.shape[2:]).swapaxes(1, 2)

    def tokens(x: Array) -> Array:
        return x.swapaxes(1, 2).reshape(x.shape[0], count * rate, *x.shape[3:])[:, :length]

    return Layout(queries, queries, tokens, lambda i, j: True)


def _padded(x: Array, length: int) -> Array:
    """Return an array [B T ...] with zeros up to a length."""
    return jnp.pad(x, [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])


def _attend(layouts: list[Layout], q: Array, k: Array, v: Array, mask: Array, causal: bool) -> Array:
    """Return what every token reads in all layouts together: one softmax, whose maximum and sum they share."""
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    scores = [_scores(layout, q, k, mask, causal, dtype) for layout in layouts]
    largest = _together(jnp.maximum, layouts, [jax.lax.stop_gradient(each).max(axis=-1) for each in scores])
    largest = jnp.where(jnp.isfinite(largest), largest, 0)  # -inf where a token reads nothing
    weights = [
        jnp.exp(each - _by_head(layout.queries(largest))[..., None])
        for layout, each in zip(layouts, scores, strict=True)
    ]
    total = _together(jnp.add, layouts, [each.sum(axis=-1) for each in weights])[..., None]
    read = functools.reduce(
        jnp.add,
        [
            layout.tokens(
                jnp.einsum("bgnls,bgsnh->bglnh", each.astype(v.dtype), layout.keys(v), preferred_element_type=dtype)
            )
            for layout, each in zip(layouts, weights, strict=True)
        ],
    )
    return jnp.where(total == 0, 0, read / jnp.where(total == 0, 1, total)).astype(q.dtype)


def _scores(
    layout: Layout, q: Array, k: Array, mask: Array, causal: bool, dtype: DTypeLike
) -> Float[Array, "B G N L S"]:
    """Return the scores of a layout, -inf where a key is not to be read."""
    at: Int[Array, "1 T"] = jnp.arange(q.shape[1])[None]
    i, j = layout.queries(at)[..., :, None], layout.keys(at)[..., None, :]
    reads = layout.keys(mask)[..., None, :] & layout.reads(i, j)
    if causal:
        reads &= j <= i
    scores = jnp.einsum("bglnh,bgsnh->bgnls", layout.queries(q), layout.keys(k), preferred_element_type=dtype)
    return jnp.where(reads[:, :, None], scores / jnp.sqrt(q.shape[-1]).astype(dtype), -jnp.inf)


def _together(
    combine: Callable[[Array, Array], Array], layouts: list[Layout], numbers: list[Array]
) -> Float[Array, "B T N"]:
    """Return one number a token and head from those [B G N L] of every layout."""
    by_token = [layout.tokens(each.swapaxes(2, 3)) for layout, each in zip(layouts, numbers, strict=True)]
    return functools.reduce(combine, by_token)


def _by_head(x: Float[Array, "B G L N"]) -> Float[Array, "B G N L"]:
    return x.swapaxes(2, 3)
