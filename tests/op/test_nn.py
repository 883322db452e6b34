"""The Flax modules: shapes, parameters, weights returned, masks, dtypes, and Linen through flax's bridge."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import lnpool
import lnpool.nn
from lnpool.exponent import EXPONENTS

KEY = jax.random.key(0)
STATES = jax.random.normal(KEY, (3, 7, 8))
MASK = jnp.arange(7) < jnp.array([7, 3, 1])[:, None]


def make(**options) -> lnpool.nn.LearnedNormPool:
    return lnpool.nn.LearnedNormPool(8, rngs=nnx.Rngs(0), **options)


@pytest.mark.sampled(7)
@pytest.mark.parametrize(
    ("options", "p_shape", "weights_shape"),
    [
        ({}, (), (3, 7)),
        ({"score": None}, (), (3, 7)),
        ({"heads": 2}, (), (3, 7, 2)),
        ({"heads": 2, "per": "head"}, (2,), (3, 7, 2)),
        ({"per": "head"}, (1,), (3, 7, 1)),
        ({"heads": 2, "per": "feature"}, (8,), (3, 7, 8)),
        ({"per": "feature"}, (8,), (3, 7, 8)),
    ],
    ids=str,
)
@pytest.mark.parametrize("sharpen", [True, False])
def test_shapes_and_weights(options, p_shape, weights_shape, sharpen):
    module = make(sharpen=sharpen, **options)
    pooled, weights = module(STATES, mask=MASK, return_weights=True)
    assert (pooled.shape, weights.shape, module.p.shape) == ((3, 8), weights_shape, p_shape)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert not np.asarray(weights)[~np.asarray(MASK)].any()
    np.testing.assert_array_equal(pooled, module(STATES, mask=MASK))


def test_is_the_function():
    module = make(heads=2, per="head")
    module.rho[...] = jnp.array([0.1, 2.0])
    scores = module.scorer(STATES, mask=MASK)
    np.testing.assert_array_equal(
        module(STATES, mask=MASK), lnpool.pool(STATES, scores, module.p, mask=MASK, scale_limit="tanh")
    )
    given = jnp.cos(jnp.arange(42.0)).reshape(3, 7, 2)
    np.testing.assert_array_equal(
        module(STATES, mask=MASK, scores=given), lnpool.pool(STATES, given, module.p, mask=MASK, scale_limit="tanh")
    )


def test_padding_changes_nothing():
    module = make()

    @nnx.jit
    def loss_and_gradients(module, states):
        return nnx.value_and_grad(lambda module, states: jnp.sum(jnp.sin(module(states, mask=MASK))), argnums=(0, 1))(
            module, states
        )

    clean = loss_and_gradients(module, STATES)
    for poison in (jnp.nan, jnp.inf, 1e30):
        got = loss_and_gradients(module, jnp.where(MASK[..., None], STATES, poison))
        jax.tree.map(np.testing.assert_array_equal, got, clean)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))


NEAR_ZERO, NEAR_ONE, NEAR_SIXTEEN = 5e-324, float(np.nextafter(1, 2)), float(np.nextafter(16, 0))
ROUND_TRIPS = [
    *(("softplus", p) for p in (NEAR_ONE, 1.00000001, 1.001, 1.5, 2.0, 40.0, 3e38)),
    *(("positive", p) for p in (NEAR_ZERO, 1e-30, 0.01, 0.5, 2.0, 40.0, 3e38)),
    *(("bounded", p) for p in (float(np.nextafter(0.05, 1)), 0.0500001, 0.3, 1.0, 15.9, 15.9999999, NEAR_SIXTEEN)),
    *(("raw", p) for p in (-2.0, 0.0, 3e38)),
]


@pytest.mark.parametrize(("name", "p"), ROUND_TRIPS)
def test_exponent_round_trip(name, p):
    """Every initial value that is admitted has a finite rho, from which p can move."""
    module = lnpool.nn.LearnedNormPool(4, exponent=name, p_init=p, rngs=nnx.Rngs(0))
    rho = module.rho[...]
    assert np.isfinite(rho)
    np.testing.assert_allclose(module.p, p, rtol=4e-6, atol=2e-38)
    slope = float(jax.grad(EXPONENTS[name].p)(rho))
    assert np.isfinite(slope)
    assert slope > 0


def test_fixed_exponent_gets_no_gradient():
    module = make(exponent="fixed", p_init=float("inf"))
    gradients = nnx.grad(lambda module: jnp.sum(module(STATES, mask=MASK) ** 2))(module)
    assert float(module.p) == np.inf
    assert float(gradients.rho[...]) == 0


def test_exponents_stay_in_their_interval():
    for name in ("softplus", "positive", "bounded"):
        lower, upper = EXPONENTS[name].interval
        p = np.asarray(EXPONENTS[name].p(jnp.array([-1e4, -5.0, 0.0, 5.0, 1e4])))
        assert (p >= lower * (1 - 1e-6)).all()
        assert (p <= upper * (1 + 1e-6)).all()


def test_dtypes():
    module = make(dtype=jnp.bfloat16)
    assert module(STATES, mask=MASK).dtype == jnp.bfloat16
    assert module.rho[...].dtype == jnp.float32
    assert make()(STATES).dtype == jnp.float32


def test_p_learns_a_known_optimum():
    """A teacher with p = 3.5 and the same states: gradient descent on rho alone finds it."""
    states = jnp.exp(jax.random.normal(KEY, (16, 9, 4)) / 2)
    teacher = lnpool.pool(states, None, 3.5)
    module = lnpool.nn.LearnedNormPool(4, score=None, scale_limit=None, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer):
        optimizer.update(module, nnx.grad(lambda module: jnp.mean((module(states) - teacher) ** 2))(module))

    for _ in range(300):
        step(module, optimizer)
    np.testing.assert_allclose(module.p, 3.5, rtol=1e-2)


def test_linen_bridge():
    class Classifier(linen.Module):
        @linen.compact
        def __call__(self, states, mask):
            return linen.Dense(2)(nnx.bridge.to_linen(lnpool.nn.LearnedNormPool, features=8)(states, mask=mask))

    model = Classifier()
    variables = model.init(KEY, STATES, MASK)
    gradients = jax.grad(lambda v: jnp.sum(model.apply(v, STATES, MASK) ** 2))(variables)
    rho = [leaf for path, leaf in jax.tree.leaves_with_path(gradients) if "rho" in jax.tree_util.keystr(path)]
    assert len(rho) == 1
    assert np.isfinite(rho[0])
    assert rho[0] != 0


@pytest.mark.slow
def test_contributions_and_attention_weights():
    states = jnp.abs(STATES).at[0, :, 0].set(0.0).at[0, 2, 1].set(0.0)
    scores = jnp.sin(jnp.arange(21.0)).reshape(3, 7)
    for p in (-2.0, 0.0, 1e-6, 1.0, 3.0, 50.0, jnp.inf):
        w = np.asarray(lnpool.contributions(states, scores, p, mask=MASK))
        np.testing.assert_allclose(w.sum(1), 1, rtol=1e-5)
        assert not w[~np.asarray(MASK)].any()
    log_states = jnp.log(jnp.abs(STATES))
    by_autodiff = jax.jacrev(lambda u: jnp.log(lnpool.pool(u, scores, 3.0, mask=MASK, log_states=True)))(log_states)
    w = lnpool.contributions(log_states, scores, 3.0, mask=MASK, log_states=True)
    np.testing.assert_allclose(jnp.einsum("bdbtd->btd", by_autodiff), w, atol=1e-6)
    v = lnpool.attention_weights(scores, 3.0, mask=MASK)
    np.testing.assert_allclose(v, jax.nn.softmax(jnp.where(MASK, 3 * scores, -jnp.inf)), atol=1e-6)
    np.testing.assert_allclose(lnpool.attention_weights(scores, 3.0, sharpen=False), jax.nn.softmax(scores), atol=1e-6)
    np.testing.assert_array_equal(lnpool.attention_weights(scores, 1.0, mask=jnp.zeros((1, 7), bool)), 0)


@pytest.mark.parametrize("p_init", [0.01, 1.0, 30.0])
def test_signed_states_to_signed_numbers(p_init):
    """The exp limit with log output: between attention pooling and the maximum, and p moves from either end."""
    module = make(
        scale_limit="exp", log_output=True, sharpen=False, score=None, exponent="positive", p_init=p_init, per="feature"
    )
    pooled, weights = module(STATES, mask=MASK, return_weights=True)
    x = np.where(MASK[..., None], STATES, np.nan)
    assert (pooled >= np.nanmean(x, 1) - 1e-5).all()
    assert (pooled <= np.nanmax(x, 1) + 1e-5).all()
    np.testing.assert_allclose(module.p, p_init, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    gradient = nnx.grad(lambda module: jnp.sum(module(STATES, mask=MASK)))(module).rho[...]
    assert np.isfinite(gradient).all()
    assert (gradient > 0).all(), "log r grows with p"
