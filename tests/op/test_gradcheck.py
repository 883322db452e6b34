"""N8: finite differences in float64, orders 1 and 2, against every implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_jvp, check_vjp

import lnpool
from tests.op.running import float64
from tests.op.tolerances import GRADCHECK

MODES = {"xla": ("rev",), "xla_jvp": ("fwd", "rev"), "reference": ("rev",)}
EXPONENTS = (0.3, 1.0, 2.0, -2.0)
AROUND_ZERO = (0.0, 1e-9, -1e-9)
FORMS = {
    "linear": {},
    "log": {"log_states": True},
    "bounded": {"log_states": True, "log_bound": 1.5},
    "tanh": {"scale_limit": "tanh"},
    "fixed": {"sharpen": False},
    "heads": {},
}


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    states = rng.uniform(0.3, 2.0, (2, 5, 4))
    return states, rng.standard_normal((2, 5, 2))


MASK = np.array([[True] * 5, [True, False, True, True, False]])


def weighted(form, implementation):
    """The function of states, scores and p that is checked."""
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (2, 4))

    @jax.jit
    def f(s, z, e):
        pooled = lnpool.pool(s, z, e, mask=jnp.asarray(MASK), implementation=implementation, **FORMS[form])
        return jnp.asarray(weights) * pooled

    return f


def forward(f):
    """A check of the forward mode of f, and the derivative of f by all arguments that a second check starts from."""
    push = jax.jit(lambda point, tangents: jax.jvp(f, point, tangents))
    return functools.partial(check_jvp, f, push), jax.jit(lambda *point: push(point, point)[1])


def reverse(f):
    """The same for the reverse mode."""
    pull = jax.jit(lambda point, cotangent: jax.vjp(f, *point)[1](cotangent))
    check = functools.partial(check_vjp, f, lambda *point: (f(*point), functools.partial(pull, point)))
    return check, jax.jit(lambda *point: pull(point, f(*point)))


KINDS = {"fwd": forward, "rev": reverse}


def checks(f, modes):
    """Return the checks of every mode, and of every mode of every mode."""
    first = [KINDS[mode](f) for mode in modes]
    second = [KINDS[mode](derivative)[0] for _, derivative in first for mode in modes]
    return [check for check, _ in first], second


def test_a_wrong_second_derivative_is_found():
    """The derivative of x ** 2, given as 2 x with a constant x: right, and its own derivative is 0."""
    square = jax.custom_jvp(lambda x: x**2)
    square.defjvp(lambda x, t: (x[0] ** 2, 2 * jax.lax.stop_gradient(x[0]) * t[0]))
    first, second = checks(jax.jit(square), ("fwd", "rev"))
    assert (len(first), len(second)) == (2, 4)
    with float64():
        point = (jnp.asarray([1.5, -2.0]),)
        for check in first:
            check(point, **GRADCHECK)
        for check in second:
            with pytest.raises(AssertionError):
                check(point, **GRADCHECK)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_n8(form, implementation):
    """The oracle is 0/0 near p = 0: there its expansion is checked by the table, not by differences of its branches."""
    states, scores = inputs()
    states = np.log(states) if "log_states" in FORMS[form] else states
    scores = scores if form == "heads" else scores[..., 0]
    first, second = checks(weighted(form, implementation), MODES[implementation])
    with float64():
        for p in (*EXPONENTS, *(AROUND_ZERO if implementation != "reference" else ())):
            exponent = np.array([p, p + 0.25]) if form == "heads" else np.asarray(p)
            point = tuple(map(jnp.asarray, (states, scores, exponent)))
            for check in (*first, *second):
                check(point, err_msg=f"p = {p}", **GRADCHECK)
