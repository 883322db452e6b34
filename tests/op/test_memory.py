"""No temporary of the size of the states: the single-pass form, and packed texts."""

import jax
import jax.numpy as jnp
import pytest

import lnpool
from tests.op.running import value_and_gradients
from tests.op.tolerances import PACKED_SHARE, TEMPORARY_SHARE

F32 = jnp.float32
FORMS = {
    "bounded": {"log_states": True, "log_bound": 1.0},
    "tanh": {"scale_limit": "tanh"},
    "linear": {},
    "exp": {"scale_limit": "exp", "log_output": True},
}


def array(*shape):
    return jax.ShapeDtypeStruct(shape, F32)


def shapes(batch, tokens, features, kind):
    heads = (4,) if kind == "head_p" else ()
    states, cotangent = array(batch, tokens, features), array(batch, features)
    return states, array(batch, tokens, *heads), array(*heads, *(features,) * (kind == "feature_p")), cotangent


def temporary_share(function, states, *rest):
    memory = jax.jit(function).lower(states, *rest).compile().memory_analysis()
    return memory.temp_size_in_bytes / (4 * states.size)


RUNS = [
    (masked, shape, kind, form)
    for masked in (False, True)
    for shape in ((64, 512, 300), (32, 512, 768))
    for kind in ("scalar_p", "head_p", "feature_p")
    for form in FORMS
    if kind != "feature_p" or (shape, form) == ((64, 512, 300), "tanh")
    if form in ("bounded", "tanh") or (kind, shape) == ("scalar_p", (32, 512, 768))
]


@pytest.mark.sampled(10)
@pytest.mark.parametrize(("masked", "shape", "kind", "form"), RUNS)
def test_no_temporary_of_the_size_of_the_states(masked, shape, kind, form):
    options = FORMS[form]
    states, scores, p, cotangent = shapes(*shape, kind)
    mask = jax.ShapeDtypeStruct(shape[:2], bool) if masked else None

    def forward(states, scores, p, mask):
        return lnpool.pool(states, scores, p, mask=mask, implementation="xla", **options)

    def both(states, scores, p, mask, cotangent):
        return value_and_gradients(states, scores, p, cotangent, mask=mask, implementation="xla", **options)

    assert temporary_share(forward, states, scores, p, mask) < TEMPORARY_SHARE
    assert temporary_share(both, states, scores, p, mask, cotangent) < TEMPORARY_SHARE


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, FORMS["bounded"]], ids=["linear", "bounded"])
def test_packed_texts_are_never_rows_of_all_states(options):
    texts, tokens, features = 100, 16384, 304
    ids = jax.ShapeDtypeStruct((tokens,), jnp.int32)

    def both(states, scores, p, ids, cotangent):
        def pool(*a):
            return lnpool.pool_packed(*a, segment_ids=ids, num_segments=texts, implementation="xla", **options)

        value, pullback = jax.vjp(pool, states, scores, p)
        return value, *pullback(cotangent)

    inputs = array(tokens, features), array(tokens), array(), ids, array(texts, features)
    assert temporary_share(both, *inputs) < PACKED_SHARE
