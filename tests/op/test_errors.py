"""Every mistake of a user: the exception type, the argument it names, and the fix it offers."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

import lnpool
import lnpool.nn

STATES = jnp.ones((2, 5, 6))
SCORES = jnp.zeros((2, 5))


@pytest.fixture(autouse=True)
def no_type_checker():
    """The type checker of the test suite would refuse some of these calls before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


POOL = [
    ({"states": jnp.ones(6)}, ValueError, r"states must have shape \[\*B T D\], rank 2 or more, got \(6,\)"),
    ({"states": jnp.ones((2, 0, 6)), "scores": None}, ValueError, "states must hold at least one token"),
    ({"states": jnp.ones((2, 5, 6), int)}, TypeError, r"states must be floating point, got int32; pass states.astype"),
    ({"states": [[1.0]]}, TypeError, r"states must be an array, got list; pass jnp.asarray"),
    ({"scores": jnp.zeros((2, 4))}, ValueError, r"scores must have shape \[\*B T\] = \(2, 5\) or .*, got \(2, 4\)"),
    ({"scores": jnp.zeros((2, 5, 1, 1))}, ValueError, r"scores must have shape"),
    ({"scores": jnp.zeros((2, 5), int)}, TypeError, "scores must be floating point, got int32"),
    ({"scores": jnp.zeros((2, 5, 4))}, ValueError, "heads must divide the features: 6 features over 4 heads leave 2"),
    ({"p": jnp.ones(4)}, ValueError, r"p must be a scalar, .* \[D\] = \(6,\) or .* \[H\] = \(1,\), got shape \(4,\)"),
    ({"p": "2"}, TypeError, "p must be a number or an array, got str"),
    ({"p": True}, TypeError, "p must be a number or an array, got bool"),
    ({"p": jnp.array(2)}, TypeError, "p must be floating point, got int32"),
    ({"mask": jnp.ones((2, 5))}, TypeError, r"mask must be boolean, True = real token, got float32; pass mask.astype"),
    ({"mask": [True] * 5}, TypeError, "mask must be a boolean array, got list"),
    ({"mask": jnp.ones((2, 4), bool)}, ValueError, r"mask must have shape .* to \(2, 5\) .* got \(2, 4\)"),
    ({"mask": jnp.ones((3, 5), bool)}, ValueError, "mask must have shape"),
    ({"mask": jnp.ones((2, 1), bool)}, ValueError, "with all 5 tokens"),
    ({"mask": jnp.array(True)}, ValueError, "mask must have shape"),
    ({"scale_limit": "tahn"}, ValueError, "scale_limit='tahn' is unknown; did you mean 'tanh'"),
    ({"scale_limit": "tanh", "log_states": True}, ValueError, "with log_states=True drop scale_limit"),
    ({"scale_limit": "tanh", "log_bound": 1.0}, ValueError, "every scale_limit knows its own bound; drop log_bound"),
    ({"log_bound": 1.0}, ValueError, "needs log_states=True"),
    ({"log_states": True, "log_bound": -1.0}, ValueError, "log_bound must be positive and finite, got -1.0"),
    ({"log_states": True, "log_bound": np.inf}, ValueError, "log_bound must be positive and finite, got inf"),
    ({"log_states": True, "log_bound": jnp.array(1.0)}, TypeError, "log_bound must be a static Python float"),
    ({"log_states": 1}, TypeError, "log_states must be True or False"),
    ({"sharpen": jnp.array(True)}, TypeError, "sharpen must be True or False"),
    ({"implementation": "xls"}, ValueError, "implementation='xls' is unknown; did you mean 'xla'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), POOL, ids=range(len(POOL)))
def test_pool(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        lnpool.pool(**{"states": STATES, "scores": SCORES, **arguments})
    assert "\n" not in str(caught.value)


def test_other_functions():
    with pytest.raises(ValueError, match="scale_limit='none' is unknown"):
        lnpool.scale_limit(STATES, "none")
    with pytest.raises(ValueError, match=r"scores must have shape \[\*B T\]"):
        lnpool.attention_weights(jnp.zeros(3), jnp.ones(3))
    with pytest.raises(ValueError, match="p must be a scalar"):
        lnpool.attention_weights(SCORES, jnp.ones(4))
    with pytest.raises(ValueError, match="heads must divide"):
        lnpool.contributions(STATES, jnp.zeros((2, 5, 4)))
    with pytest.raises(ValueError, match="needs 0 < lower < upper < inf"):
        lnpool.exponent.bounded(2.0, 1.0)


MODULE = [
    ({"features": 0}, ValueError, "features must be at least 1, got 0"),
    ({"features": 6.0}, TypeError, "features must be an integer, got float"),
    ({"heads": 4}, ValueError, "heads must divide the features"),
    ({"p_init": 0.5}, ValueError, r'p_init=0.5 is outside the range \(1.0, inf\) of .*; use exponent="bounded"'),
    ({"p_init": 20.0, "exponent": "bounded"}, ValueError, r"outside the range \(0.05, 16.0\)"),
    ({"p_init": "2"}, TypeError, "p_init must be a number"),
    ({"exponent": "soft"}, ValueError, "exponent='soft' is unknown; did you mean 'softplus'"),
    ({"per": "token"}, ValueError, "per='token' is unknown; .*Use one of 'layer', 'head', 'feature'"),
    ({"score": "dot"}, ValueError, "score='dot' is unknown"),
    ({"scale_limit": "relu"}, ValueError, "scale_limit='relu' is unknown; did you mean 'relu_clip'"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MODULE, ids=range(len(MODULE)))
def test_module(arguments, error, message):
    with pytest.raises(error, match=message):
        lnpool.nn.LearnedNormPool(**{"features": 6, "rngs": nnx.Rngs(0), **arguments})


def test_module_call():
    module = lnpool.nn.LearnedNormPool(6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"states must have shape \[\*B T D\] with D = 6, got \(2, 5, 4\)"):
        module(jnp.ones((2, 5, 4)))


IDS = jnp.array([0, 0, 1, 1, 1])
PACKED = [
    ({"states": STATES}, ValueError, r"packed states must have shape \[N D\], got \(2, 5, 6\)"),
    ({"segment_ids": IDS[::-1]}, ValueError, "segment_ids must be sorted"),
    ({"segment_ids": IDS[::-1].astype(jnp.uint8)}, ValueError, "segment_ids must be sorted"),
    ({"segment_ids": IDS[:3]}, ValueError, r"segment_ids must have shape \[N\] = \(5,\), got \(3,\)"),
    ({"segment_ids": IDS.astype(float)}, TypeError, "segment_ids must be integers, got float32"),
    ({"segment_ids": [0, 0, 1, 1, 1]}, TypeError, "segment_ids must be an array, got list"),
    ({"num_segments": 0}, ValueError, "num_segments must be at least 1"),
    ({"num_segments": 2.0}, TypeError, "num_segments must be an integer"),
    ({"implementation": "reference"}, NotImplementedError, "one row a text"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), PACKED, ids=range(len(PACKED)))
def test_pool_packed(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        lnpool.pool_packed(**{"states": STATES[0], "segment_ids": IDS, "num_segments": 2, **arguments})
    assert "\n" not in str(caught.value)


def test_axis_name():
    with pytest.raises(ValueError, match="axis_name='tokens' is no axis here"):
        lnpool.pool(STATES, axis_name="tokens")
    with pytest.raises(TypeError, match="axis_name must be the name of one shard_map axis, got tuple"):
        lnpool.pool(STATES, axis_name=("data", "tokens"))
