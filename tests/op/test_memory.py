"""The single-pass form holds no temporary of the size of the states."""

import jax
import jax.numpy as jnp
import pytest

import lnpool
from tests.op.running import value_and_gradients
from tests.op.tolerances import TEMPORARY_SHARE

F32 = jnp.float32
FORMS = {"bounded": {"log_states": True, "log_bound": 1.0}, "tanh": {"scale_limit": "tanh"}}


def shapes(batch, tokens, features, per_head):
    heads = (4,) if per_head else ()
    array = lambda *shape: jax.ShapeDtypeStruct(shape, F32)  # noqa: E731
    states, cotangent = array(batch, tokens, features), array(batch, features)
    return states, array(batch, tokens, *heads), array(*heads), cotangent


def temporary_share(function, states, *rest):
    memory = jax.jit(function).lower(states, *rest).compile().memory_analysis()
    return memory.temp_size_in_bytes / (4 * states.size)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("per_head", [False, True], ids=["scalar_p", "head_p"])
@pytest.mark.parametrize("shape", [(64, 512, 300), (32, 512, 768)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_no_temporary_of_the_size_of_the_states(masked, shape, per_head, options):
    states, scores, p, cotangent = shapes(*shape, per_head)
    mask = jax.ShapeDtypeStruct(shape[:2], bool) if masked else None

    def forward(states, scores, p, mask):
        return lnpool.pool(states, scores, p, mask=mask, implementation="xla", **options)

    def both(states, scores, p, mask, cotangent):
        return value_and_gradients(states, scores, p, cotangent, mask=mask, implementation="xla", **options)

    assert temporary_share(forward, states, scores, p, mask) < TEMPORARY_SHARE
    assert temporary_share(both, states, scores, p, mask, cotangent) < TEMPORARY_SHARE
