"""How the tests call the op: value and gradients with a given cotangent, in float32 or float64, alone or row by row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import lnpool

REVERSE = ("xla", "xla_jvp")  # implementations that carry the marks
ALL = ("reference", *REVERSE)


def float64(enabled=True):
    """A context with float64 on or off; the name moved between JAX versions."""
    return (jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64)(enabled)


def value_and_gradients(states, scores, p, cotangent, **options):
    """(r, dstates, dscores, dp); dscores is None with scores None. With ``segment_ids`` of packed texts."""
    pool = lnpool.pool_packed if "segment_ids" in options else lnpool.pool
    if scores is None:
        value, pullback = jax.vjp(lambda s, e: pool(s, None, e, **options), states, p)
        dstates, dp = pullback(cotangent)
        return value, dstates, None, dp
    value, pullback = jax.vjp(lambda s, z, e: pool(s, z, e, **options), states, scores, p)
    return (value, *pullback(cotangent))


@functools.cache
def jitted(**options):
    """Compiled (states, scores, p, mask, cotangent) -> (r, dstates, dscores, dp)."""

    @jax.jit
    def run(states, scores, p, mask, cotangent):
        return value_and_gradients(states, scores, p, cotangent, mask=mask, **options)

    return run


@functools.cache
def jitted_rows(**options):
    """The same over many scalar problems: states, scores, mask [N T], p and cotangent [N]; vmap over everything."""

    def one(states, scores, p, mask, cotangent):
        value, dstates, dscores, dp = value_and_gradients(
            states[:, None], scores, p, cotangent[None], mask=mask, **options
        )
        return value[0], dstates[:, 0], dscores, dp

    return jax.jit(jax.vmap(one))


def random_cotangent(shape, dtype=np.float32, seed=7):
    """Signed and never 1: an all-ones cotangent hides mistakes."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 2.0, shape), dtype)


def on_host(tree):
    """float64 numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
