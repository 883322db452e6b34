"""What was found wrong once: each row of the list, on both sides of the size at which the program changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnpool
import lnpool.nn
from tests.op.oracle import solve
from tests.op.running import ALL, REVERSE, float64
from tests.op.transforms import SIZES

implementations = pytest.mark.parametrize("implementation", REVERSE)
LARGE = 2**16  # elements from which on a CPU loops over blocks
sizes = pytest.mark.parametrize("features", [2, LARGE // 3 + 2], ids=["small", "large"])


def wide(column, features):
    """Tokens [T] or [T 2] as states [T D]: the same in every feature, or in every pair of features."""
    x = jnp.asarray(column, jnp.float32)
    x = x[:, None] if x.ndim == 1 else x
    return jnp.tile(x, (1, -(-features // x.shape[1])))[:, :features]


def finite(tree):
    for x in jax.tree.leaves(tree):
        assert np.isfinite(x).all()


# --- a negative state ---

NEGATIVE = {"all": [[1.0, 2], [3, 1], [2, 0.5]], "zero and negative": [[0.0, 0], [1, 1], [0, 0]]}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("states", NEGATIVE)
@sizes
def test_negative_states_give_nan(features, states, implementation):
    """Also where every real token of a feature is negative, and no sum meets a positive state."""
    x = -wide(NEGATIVE[states], features)
    for p in (1.0, 2.0, 0.0, -2.0, 0.5, np.inf):
        assert np.isnan(lnpool.pool(x, None, p, implementation=implementation)).all(), p


@pytest.mark.sampled(4)
@implementations
@sizes
def test_negative_states_give_nan_when_packed_and_in_the_module(features, implementation):
    x = -wide(NEGATIVE["all"], features)
    ids = jnp.array([0, 0, 2])
    got = np.asarray(lnpool.pool_packed(x, p=1.0, segment_ids=ids, num_segments=3, implementation=implementation))
    np.testing.assert_array_equal(np.isnan(got), np.tile([[True], [False], [True]], (1, features)))
    module = lnpool.nn.LearnedNormPool(2, scale_limit=None, rngs=lnpool.nn.nnx.Rngs(0), implementation=implementation)
    assert np.isnan(module(x[:, :2])).all()


# --- padding ---

MASK = jnp.array([True, True, False])
SMALL_STATES = {
    "log -30": ({"log_states": True}, [-30.0, -31, 0], 3.0),
    "linear 1e-7": ({}, [1e-7, 2e-7, 1], 7.9),
    "linear 1e-10": ({}, [1e-10, 3e-10, 1], 5.0),
    "softplus": ({"scale_limit": "softplus"}, [-30.0, -31, 0], 3.0),
    "sigmoid": ({"scale_limit": "sigmoid"}, [-30.0, -31, 0], 3.0),
}


@pytest.mark.sampled(20)
@implementations
@pytest.mark.parametrize("name", SMALL_STATES)
@sizes
def test_nothing_passes_from_padding(features, name, implementation):
    options, column, p = SMALL_STATES[name]
    loss = lambda x, z, p: jnp.sum(lnpool.pool(x, z, p, mask=MASK, implementation=implementation, **options))  # noqa: E731
    run = jax.jit(jax.grad(loss, (0, 1, 2)))
    for padding in (0.0, np.nan, np.inf, -3.0):
        x = wide(column, features).at[2].set(padding)
        gradients = run(x, jnp.zeros(3).at[2].set(padding), p)
        finite(gradients)
        assert not np.asarray(gradients[0])[2].any()
        assert gradients[1][2] == 0


@pytest.mark.sampled(5)
@implementations
@pytest.mark.parametrize("limit", lnpool.SCALE_LIMITS)
def test_an_empty_text_has_no_gradient(limit, implementation):
    mask = jnp.zeros((1, 3), bool)
    loss = lambda x, z, p: jnp.sum(lnpool.pool(x, z, p, mask=mask, scale_limit=limit, implementation=implementation))  # noqa: E731
    run = jax.jit(jax.grad(loss, (0, 1, 2)))
    for p in (-8.0, -1.0, 0.0, 3.0):
        for x in run(jnp.full((1, 3, 2), np.nan), jnp.zeros((1, 3)), p):
            assert not np.asarray(x).any()


# --- second derivatives and tiny exponents ---


def _second_by_p(options, x, scores, implementation):
    f = lambda p: jnp.sum(lnpool.pool(x, scores, p, implementation=implementation, **options)[0])  # noqa: E731
    return jax.jit(jax.grad(jax.grad(f)))


@pytest.mark.sampled(4)
@implementations
@pytest.mark.parametrize(
    ("options", "u"),
    [({"scale_limit": "relu_clip"}, np.log(1e-6)), ({"log_states": True, "log_bound": 5.0}, -4.9)],
    ids=["relu_clip", "bound 5"],
)
def test_second_derivative_by_p_where_all_states_are_small(options, u, implementation):
    """All states are equal: r does not depend on p, so its derivatives are 0."""
    x = -jnp.ones((4, 2)) if "scale_limit" in options else jnp.full((4, 2), u)
    second = _second_by_p(options, x, jnp.arange(4.0), implementation)
    for p in (3.0, 3.3, 4.7, 5.6, 7.9, 20.0):
        assert abs(second(p)) <= 1e-4 * np.exp(u), p


@pytest.mark.sampled(4)
@implementations
@sizes
def test_slope_of_a_zero_state_at_tiny_exponents(features, implementation):
    """r = (3/4)^(1/p) is 0 long before p is: so are its derivatives."""
    x = wide([0.0, 1, 1, 1], features)
    f = lambda p: jnp.sum(lnpool.pool(x, None, p, implementation=implementation)[:1])  # noqa: E731
    run, second = jax.jit(jax.grad(f)), jax.jit(jax.grad(jax.grad(f)))
    for p in (1e-37, 1e-30, 1e-20, 1e-10, 1e-3):
        assert float(run(p)) == 0, p
        assert features > 2 or np.isfinite(second(p)), p


@pytest.mark.sampled(2)
@implementations
def test_second_derivative_by_p_at_tiny_exponents(implementation):
    x = np.array([[0.5], [2.0], [1.0], [1.7]], np.float32)
    z = np.array([0.3, -1.0, 0.2, 0.9], np.float32)
    second = _second_by_p({}, jnp.asarray(x), jnp.asarray(z), implementation)
    u, keep = np.log(np.longdouble(x.T)), np.ones((1, 4), bool)
    by_p = lambda p: (lambda s: (s.r * s.slope).item())(solve(u, np.longdouble(z[None]), np.array([p]), keep))  # noqa: E731
    want = (by_p(np.longdouble(1e-6)) - by_p(np.longdouble(-1e-6))) / np.longdouble(2e-6)
    for p in (1e-30, 1e-25, 1e-15, 0.0, -1e-20, -1e-30):
        np.testing.assert_allclose(second(p), float(want), rtol=1e-4, err_msg=str(p))


@pytest.mark.sampled(2)
@implementations
def test_second_derivative_by_p_beside_a_zero_of_large_log_states(implementation):
    """r is e^57: what is multiplied by it must not be a float that stands for infinity."""
    u, z = np.array([[-np.inf], [57.0], [56.5]], np.float32), np.array([0.3, -1.0, 0.2], np.float32)
    second = _second_by_p({"log_states": True}, jnp.asarray(u), jnp.asarray(z), implementation)
    keep = np.ones((1, 3), bool)
    by_p = lambda p: (lambda s: (s.r * s.slope).item())(solve(np.longdouble(u.T), z[None], np.array([p]), keep))  # noqa: E731
    for p in (0.5, 2.0):
        want = (by_p(np.longdouble(p + 1e-6)) - by_p(np.longdouble(p - 1e-6))) / np.longdouble(2e-6)
        np.testing.assert_allclose(second(p), float(want), rtol=1e-4, err_msg=str(p))


@implementations
def test_a_feature_without_cotangent_has_no_gradient(implementation):
    """dr/dh overflows in the other feature; 0 times it is 0."""
    h = jnp.array([[1e-30, 7.0], [1e30, 3.0]])
    dh = jax.grad(lambda h: lnpool.pool(h, p=0.05, implementation=implementation)[1])(h)
    np.testing.assert_array_equal(dh[:, 0], 0)
    finite(dh)


# --- wide ids of packed texts ---

PACKED = jnp.arange(1.0, 9).reshape(8, 1)
OUTSIDE = {
    "uint32": np.array([0, 0, 1, 1, 2, 2, 2**32 - 1, 2**32 - 1], np.uint32),
    "uint32 2**31": np.array([0, 0, 1, 1, 2, 2, 2**31, 2**31], np.uint32),
    "int64 2**32": np.array([0, 0, 1, 1, 2, 2, 2**32, 2**32 + 1], np.int64),
    "int64 2**63": np.array([0, 0, 1, 1, 2, 2, 2**63 - 1, 2**63 - 1], np.int64),
    "uint64": np.array([0, 0, 1, 1, 2, 2, 2**64 - 1, 2**64 - 1], np.uint64),
    "uint8": np.array([0, 0, 1, 1, 2, 2, 254, 255], np.uint8),
    "int32": np.array([0, 0, 1, 1, 2, 2, 3, 2**31 - 1], np.int32),
}
BELOW = {
    "int64 -2**63": np.array([-(2**63), -(2**32), 0, 0, 1, 1, 2, 2], np.int64),
    "int8": np.array([-128, -1, 0, 0, 1, 1, 2, 2], np.int8),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", [*OUTSIDE, *BELOW])
@pytest.mark.parametrize("jitted", [False, True])
def test_wide_ids_belong_to_no_text(jitted, name):
    ids = (OUTSIDE | BELOW)[name]
    want = [1.5, 3.5, 5.5] if name in OUTSIDE else [3.5, 5.5, 7.5]

    def loss(x, ids):
        r = lnpool.pool_packed(x, p=1.0, segment_ids=ids, num_segments=3)
        return jnp.sum(r), r[:, 0]

    run = jax.value_and_grad(loss, has_aux=True)
    if jitted and ids.dtype.itemsize < 8:
        (_, got), gradient = jax.jit(run)(PACKED, ids)
    elif jitted:  # JAX itself cuts 64-bit arguments of jit to 32 bits; what is closed over stays whole
        (_, got), gradient = jax.jit(lambda x: run(x, ids))(PACKED)
    else:
        (_, got), gradient = run(PACKED, ids)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, 0], np.where((ids >= 0) & (ids < 3), 0.5, 0), rtol=1e-6)


# --- infinite numbers ---


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(
    "form", [{}, {"log_states": True}, {"scale_limit": "abs"}, {"scale_limit": "softplus"}], ids=str
)
def test_an_infinite_state_gives_nan_in_its_feature_only(form, implementation):
    x = jnp.array([[1.0, 2.0], [jnp.inf, 1.0], [0.5, 0.5]])
    for p in (1.0, 2.5, 0.3, -1.0, 0.0, np.inf):
        got = np.asarray(lnpool.pool(x, None, p, implementation=implementation, **form))
        assert np.isnan(got[0]) == (p >= 0), "where p < 0 an infinite state has no share"
        assert np.isfinite(got[1])


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("p", [1.0, 2.5])
def test_infinite_scores_act_as_the_largest_ones(p, implementation):
    """-inf takes the attention away, +inf draws it all; equal ones share, so a row of nothing but -inf is uniform."""
    x = jnp.array([[1.0], [3.0], [2.0]])
    pool = lambda z: float(lnpool.pool(x, jnp.asarray(z, jnp.float32), p, implementation=implementation)[0])  # noqa: E731
    even = lambda *h: float(lnpool.pool(jnp.array(h)[:, None], None, p)[0])  # noqa: E731
    np.testing.assert_allclose(pool([0, -np.inf, 0]), even(1.0, 2.0), rtol=1e-6)
    np.testing.assert_allclose(pool([0, np.inf, 0]), 3.0, rtol=1e-6)
    np.testing.assert_allclose(pool([np.inf, -np.inf, np.inf]), even(1.0, 2.0), rtol=1e-6)
    np.testing.assert_allclose(pool([-np.inf] * 3), even(1.0, 3.0, 2.0), rtol=1e-6)


@implementations
def test_gradients_at_infinite_scores_are_finite(implementation):
    x = jnp.array([[1.0], [3.0], [2.0]])
    for z in ([0, -np.inf, 0], [0, np.inf, 0], [-np.inf] * 3):
        f = lambda x, z, p: lnpool.pool(x, z, p, implementation=implementation)[0]  # noqa: E731
        finite(jax.grad(f, (0, 1, 2))(x, jnp.asarray(z, jnp.float32), 2.5))


# --- second derivatives ---


@implementations
def test_second_derivatives_where_r_is_large_and_attention_there_small(implementation):
    """r is 4e13 and the sum W, hardly more than the attention at the largest state, 7e-14: r/W^2 is no float32."""
    x, z, p = [0.3, -0.7, -1.5, 34.6, -0.5, -2.5, -1.4], [-1.4, 0.8, 0.4, -1.9, 1.4, 0.2, 0.45], 9.16
    along = [np.cos(np.arange(7.0))[:, None], np.sin(np.arange(7.0)), 1.5]

    def curved(implementation):
        a, way = [jnp.asarray(x)[:, None], jnp.asarray(z), jnp.asarray(p)], [jnp.asarray(v) for v in along]
        f = lambda a: lnpool.pool(*a, log_states=True, implementation=implementation)[0]  # noqa: E731
        dot = lambda a: sum(jnp.sum(d * v) for d, v in zip(jax.grad(f)(a), way, strict=True))  # noqa: E731
        return jax.tree.map(np.asarray, jax.grad(dot)(a))

    with float64():
        want = curved("reference")
    for one, other in zip(curved(implementation), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())


# --- transforms ---


@pytest.mark.sampled(4)
@pytest.mark.parametrize("transform", [jax.jacfwd, jax.hessian])
@pytest.mark.parametrize("size", SIZES)
def test_forward_derivatives_by_p(size, transform):
    b, t, d = SIZES[size]
    x = jnp.exp(jnp.sin(jnp.arange(b * t * d, dtype=jnp.float32))).reshape(b, t, d)
    f = lambda p, name: jnp.mean(lnpool.pool(x, None, p, implementation=name))  # noqa: E731
    got, want = (jax.jit(transform(lambda p, name=name: f(p, name)))(2.5) for name in ("xla_jvp", "reference"))
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", [{"log_bound": 1.0, "log_states": True}, {"scale_limit": "relu_clip"}, {}], ids=str)
def test_vjp_of_xla_jvp_under_vmap_over_p(form):
    """A conditional under vmap is a select, and what JAX cannot transpose must not stand in it."""
    x = jnp.sin(jnp.arange(24.0)).reshape(3, 8, 1) / 2 + (0 if form else 1)
    f = lambda x, p: lnpool.pool(x, None, p, implementation="xla_jvp", **form)[0]  # noqa: E731
    got = jax.vmap(jax.grad(f, (0, 1)))(x, jnp.array([0.5, 2.0, 40.0]))
    finite(got)
