"""N8: finite differences in float64, orders 1 and 2, against every implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import lnpool
from tests.op.running import float64
from tests.op.tolerances import GRADCHECK

MODES = {"xla": ("rev",), "xla_jvp": ("fwd", "rev"), "reference": ("rev",)}
EXPONENTS = (0.0, 1e-9, -1e-9, 0.3, 1.0, 2.0, -2.0)
FORMS = {
    "linear": {},
    "log": {"log_states": True},
    "bounded": {"log_states": True, "log_bound": 1.5},
    "tanh": {"scale_limit": "tanh"},
    "fixed": {"sharpen": False},
    "heads": {},
}
# The oracle is 0/0 near p = 0: there its expansion is checked by the table, not by differences of its own two branches.
PAIRS = [(i, p) for i in MODES for p in EXPONENTS if i != "reference" or abs(p) > 0.1]
CHECKS = [(form, *pair) for form in FORMS for pair in PAIRS]


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    states = rng.uniform(0.3, 2.0, (2, 5, 4))
    return states, rng.standard_normal((2, 5, 2))


MASK = np.array([[True] * 5, [True, False, True, True, False]])


@functools.cache
def weighted(form, implementation):
    """The function of states, scores and p that is checked; one for all exponents, so that they share programs."""
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (2, 4))

    @jax.jit
    def f(s, z, e):
        pooled = lnpool.pool(s, z, e, mask=jnp.asarray(MASK), implementation=implementation, **FORMS[form])
        return jnp.asarray(weights) * pooled

    return f


@pytest.mark.slow
@pytest.mark.parametrize(("form", "implementation", "p"), CHECKS)
def test_n8(form, implementation, p):
    states, scores = inputs()
    states = np.log(states) if "log_states" in FORMS[form] else states
    scores = scores if form == "heads" else scores[..., 0]
    exponent = np.array([p, p + 0.25]) if form == "heads" else np.asarray(p)
    with float64():
        point = tuple(map(jnp.asarray, (states, scores, exponent)))
        check_grads(weighted(form, implementation), point, order=2, modes=MODES[implementation], **GRADCHECK)
