"""The attention weights: v = softmax(p z) over tokens, or softmax(z) when attention stays out of the power.

With z relative to the largest score for p >= 0 and to the smallest for p < 0, q_i = p z_i <= 0, Z = sum_i e^q_i and
log v_i = q_i - log Z.
"""

import jax.numpy as jnp
from jax import Array

from lnpool._formulas.safe import INFINITE, at_most, finite


def power(p: Array, sharpen: bool) -> Array:
    """The exponent that sharpens the attention."""
    return finite(p) if sharpen else jnp.ones((1,) * p.ndim, p.dtype)


def centred(scores: Array, offset: Array) -> Array:
    """z: scores relative to the offset of their text, in the range where they can be multiplied."""
    return jnp.clip(finite(scores) - offset, -INFINITE, INFINITE)


def exponents(p: Array, z: Array) -> Array:
    """q = p z, which only rounding can bring above 0."""
    return at_most(p * z, 0)


def log_weights(p: Array, z: Array, log_z: Array) -> Array:
    """log v; a finite number at padding: select, never multiply."""
    return exponents(p, z) - log_z
