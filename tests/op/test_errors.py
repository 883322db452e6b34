"""Each mistake of a user: the exception type, and one sentence: the argument, what was expected, what came, the fix."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

import lnpool
import lnpool.nn

STATES = jnp.ones((2, 5, 6))
SCORES = jnp.zeros((2, 5))
PLAIN = np.ones((2, 5, 6), np.float32)


@pytest.fixture(autouse=True)
def no_type_checker():
    """The type checker of the test suite would refuse some of these calls before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def table(rows):
    return pytest.mark.parametrize(("arguments", "error", "message"), rows, ids=range(len(rows)))


def refused(call, arguments, error, message):
    """The call raises, in one sentence that says what came or what to do."""
    with pytest.raises(error, match=message) as caught:
        call(**arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    assert not re.search(r"[.?] +[A-Z]", text), "one sentence"


POOL = [
    ({"states": jnp.ones(6)}, ValueError, r"states must have shape \[\*B T D\], rank 2 or more, got \(6,\)"),
    ({"states": jnp.ones((2, 0, 6)), "scores": None}, ValueError, "states must hold at least one token"),
    ({"states": jnp.ones((2, 5, 0))}, ValueError, r"states must have at least one feature, got shape \(2, 5, 0\)"),
    ({"states": jnp.ones((2, 5, 6), int)}, TypeError, r"states must be floating point, got int32; pass states.astype"),
    ({"states": jnp.ones((2, 5, 6), complex)}, TypeError, "states must be floating point, got complex64"),
    ({"states": [[1.0]]}, TypeError, r"states must be an array, got list; pass jnp.asarray"),
    ({"states": None}, TypeError, "states must be an array, got NoneType"),
    ({"states": PLAIN.astype(object)}, TypeError, "states must be floating point, got object; pass states.astype"),
    ({"states": PLAIN.astype(">f4")}, TypeError, r"states must have the byte order of this machine, got >f4; pass"),
    ({"states": PLAIN.astype(np.longdouble)}, TypeError, "states must be floating point, got float128"),
    ({"states": np.ma.masked_array(PLAIN)}, TypeError, "states must be a plain array, got a numpy masked array; pass"),
    ({"scores": jnp.zeros((2, 4))}, ValueError, r"scores must have shape \[\*B T\] = \(2, 5\) or .*, got \(2, 4\)"),
    ({"scores": jnp.zeros((2, 5, 1, 1))}, ValueError, r"scores must have shape"),
    ({"scores": jnp.zeros((2, 5, 0))}, ValueError, r"scores must have .* one head or more .* got \(2, 5, 0\)"),
    ({"scores": jnp.zeros((2, 5), int)}, TypeError, "scores must be floating point, got int32"),
    ({"scores": np.zeros((2, 5), object)}, TypeError, "scores must be floating point, got object"),
    ({"scores": np.zeros((2, 5), ">f8")}, TypeError, "scores must have the byte order of this machine, got >f8"),
    ({"scores": np.ma.masked_array(np.zeros((2, 5)))}, TypeError, "scores must be a plain array"),
    ({"scores": jnp.zeros((2, 5, 4))}, ValueError, "heads must divide the features: 6 features over 4 heads leave 2"),
    ({"p": jnp.ones(4)}, ValueError, r"p must be a scalar, .* \[D\] = \(6,\) or .* \[H\] = \(1,\), got shape \(4,\)"),
    ({"p": jnp.ones((1, 1))}, ValueError, r"p must be a scalar, .* got shape \(1, 1\)"),
    ({"p": jnp.ones(0)}, ValueError, r"p must be a scalar, .* got shape \(0,\)"),
    ({"p": "2"}, TypeError, "p must be a number or an array, got str"),
    ({"p": None}, TypeError, "p must be a number or an array, got NoneType"),
    ({"p": True}, TypeError, "p must be a number or an array, got bool"),
    ({"p": jnp.array(2)}, TypeError, "p must be floating point, got int32"),
    ({"p": np.array(2.0, object)}, TypeError, "p must be floating point, got object"),
    ({"p": np.array(2.0, ">f4")}, TypeError, "p must have the byte order of this machine"),
    ({"p": np.ma.masked_array(2.0)}, TypeError, "p must be a plain array"),
    ({"p": 10**400}, ValueError, "p must be in the range of a float, got an integer of 1329 bits; pass inf"),
    ({"mask": jnp.ones((2, 5))}, TypeError, r"mask must be boolean, True = real token, got float32; pass mask.astype"),
    ({"mask": [True] * 5}, TypeError, "mask must be an array, got list"),
    ({"mask": np.ma.masked_array(np.ones((2, 5), bool))}, TypeError, "mask must be a plain array"),
    ({"mask": np.ones((2, 5), object)}, TypeError, "mask must be boolean, True = real token, got object"),
    ({"mask": jnp.ones((2, 4), bool)}, ValueError, r"mask must have shape .* to \(2, 5\) .* got \(2, 4\)"),
    ({"mask": jnp.ones((3, 5), bool)}, ValueError, "mask must have shape"),
    ({"mask": jnp.ones((2, 1), bool)}, ValueError, "with all 5 tokens"),
    ({"mask": jnp.ones((1, 2, 5), bool)}, ValueError, "mask must have shape"),
    ({"mask": jnp.array(True)}, ValueError, "mask must have shape"),
    ({"scale_limit": "tahn"}, ValueError, "scale_limit must be one of 'tanh', .*, got 'tahn'; did you mean 'tanh'"),
    ({"scale_limit": 1}, TypeError, "scale_limit must be a string, one of 'tanh', .*, got int"),
    ({"scale_limit": STATES}, TypeError, "scale_limit must be a string"),
    ({"scale_limit": "tanh", "log_states": True}, ValueError, "scale_limit makes log states from raw ones"),
    ({"scale_limit": "tanh", "log_bound": 1.0}, ValueError, "log_bound must be None with a scale_limit"),
    ({"log_bound": 1.0}, ValueError, "needs log_states=True"),
    ({"log_states": True, "log_bound": -1.0}, ValueError, "log_bound must be positive and finite, got -1.0"),
    ({"log_states": True, "log_bound": np.inf}, ValueError, "log_bound must be positive and finite, got inf"),
    ({"log_states": True, "log_bound": np.nan}, ValueError, "log_bound must be positive and finite, got nan"),
    ({"log_states": True, "log_bound": 10**400}, ValueError, "log_bound must be positive and finite, got 1000"),
    ({"log_states": True, "log_bound": jnp.array(1.0)}, TypeError, "log_bound must be a static Python float"),
    ({"log_states": 1}, TypeError, "log_states must be True or False"),
    ({"sharpen": jnp.array(True)}, TypeError, "sharpen must be True or False"),
    ({"implementation": "xls"}, ValueError, "implementation must be one of .*, got 'xls'; did you mean 'xla'"),
    ({"implementation": 3}, TypeError, "implementation must be a string, .* got int"),
    ({"axis_name": "tokens"}, ValueError, "axis_name='tokens' is no axis here; call inside jax.shard_map"),
    ({"axis_name": ("a", "b")}, TypeError, "axis_name must be the name of one shard_map axis, got tuple"),
]


@table(POOL)
def test_pool(arguments, error, message):
    refused(lnpool.pool, {"states": STATES, "scores": SCORES, **arguments}, error, message)


IDS = jnp.array([0, 0, 1, 1, 1])
PACKED = [
    ({"states": STATES}, ValueError, r"packed states must have shape \[N D\], got \(2, 5, 6\)"),
    ({"segment_ids": IDS[::-1]}, ValueError, "segment_ids must be sorted"),
    ({"segment_ids": IDS[::-1].astype(jnp.uint8)}, ValueError, "segment_ids must be sorted"),
    ({"segment_ids": IDS[:3]}, ValueError, r"segment_ids must have shape \[N\] = \(5,\), got \(3,\)"),
    ({"segment_ids": IDS.astype(float)}, TypeError, "segment_ids must be integers, got float32"),
    ({"segment_ids": np.zeros(5, bool)}, TypeError, "segment_ids must be integers, got bool"),
    ({"segment_ids": np.zeros(5, object)}, TypeError, "segment_ids must be integers, got object"),
    ({"segment_ids": np.zeros(5, ">i4")}, TypeError, "segment_ids must have the byte order of this machine, got >i4"),
    ({"segment_ids": np.ma.masked_array(np.zeros(5, int))}, TypeError, "segment_ids must be a plain array"),
    ({"segment_ids": [0, 0, 1, 1, 1]}, TypeError, "segment_ids must be an array, got list"),
    ({"num_segments": 0}, ValueError, "num_segments must be at least 1"),
    ({"num_segments": 2**31}, ValueError, r"num_segments must be at least 1 and below 2\*\*31, got 2147483648"),
    ({"num_segments": 2.0}, TypeError, "num_segments must be a static integer"),
    ({"implementation": "reference"}, NotImplementedError, "one row a text"),
]


@table(PACKED)
def test_pool_packed(arguments, error, message):
    whole = {"states": STATES[0], "segment_ids": IDS, "num_segments": 2, **arguments}
    refused(lnpool.pool_packed, whole, error, message)


OTHERS = [
    ({"call": lnpool.scale_limit, "x": STATES, "method": "none"}, ValueError, "scale_limit must be one of .*'none'"),
    ({"call": lnpool.scale_limit, "x": [1.0], "method": "tanh"}, TypeError, "x must be an array, got list"),
    ({"call": lnpool.scale_limit, "x": PLAIN.astype(object), "method": "tanh"}, TypeError, "x must be floating point"),
    ({"call": lnpool.attention_weights, "scores": jnp.zeros(3), "p": jnp.ones(3)}, ValueError, r"or \[\*B T H\] with"),
    ({"call": lnpool.attention_weights, "scores": SCORES, "p": jnp.ones(4)}, ValueError, "p must be a scalar"),
    ({"call": lnpool.attention_weights, "scores": SCORES, "p": "1"}, TypeError, "p must be a number or an array"),
    ({"call": lnpool.attention_weights, "scores": SCORES[:, :0]}, ValueError, "scores must hold at least one token"),
    (
        {"call": lnpool.attention_weights, "scores": jnp.ones((2, 5, 0)), "p": jnp.ones(0)},
        ValueError,
        "scores must hold at least one token and head",
    ),
    ({"call": lnpool.contributions, "states": STATES, "scores": jnp.zeros((2, 5, 4))}, ValueError, "heads must divide"),
    ({"call": lnpool.exponent.bounded, "lower": 2.0, "upper": 1.0}, ValueError, "needs 0 < lower < upper < inf"),
]


@table(OTHERS)
def test_other_functions(arguments, error, message):
    arguments = dict(arguments)
    refused(arguments.pop("call"), arguments, error, message)


MODULE = [
    ({"features": 0}, ValueError, "features must be at least 1 .* got 0"),
    ({"features": 6.0}, TypeError, "features must be a static integer, got float"),
    ({"heads": 4}, ValueError, "heads must divide the features"),
    ({"heads": 0}, ValueError, "heads must be at least 1"),
    ({"hidden": 0}, ValueError, "hidden must be at least 1"),
    ({"p_init": 0.5}, ValueError, r'p_init must lie inside of the range \(1.0, inf\) .*, got 0.5; use exponent="posit'),
    ({"p_init": 1.0}, ValueError, "p_init must lie inside"),
    ({"p_init": np.nan}, ValueError, "p_init must lie inside"),
    ({"p_init": 1e39}, ValueError, "p_init must lie inside"),
    ({"p_init": 10**400, "exponent": "raw"}, ValueError, "p_init must lie inside"),
    ({"p_init": 0.0, "exponent": "positive"}, ValueError, r"range \(0.0, inf\)"),
    ({"p_init": 20.0, "exponent": "bounded"}, ValueError, r"range \(0.05, 16.0\)"),
    ({"p_init": "2"}, TypeError, "p_init must be a number"),
    ({"exponent": "soft"}, ValueError, "exponent must be one of .*, got 'soft'; did you mean 'softplus'"),
    ({"per": "token"}, ValueError, "per must be one of 'layer', 'head', 'feature', got 'token'"),
    ({"score": "dot"}, ValueError, "score must be one of 'additive', got 'dot'"),
    ({"scale_limit": "relu"}, ValueError, "scale_limit must be one of .*, got 'relu'; did you mean 'relu_clip'"),
    ({"sharpen": 1}, TypeError, "sharpen must be True or False"),
    ({"dtype": "floaty"}, TypeError, "dtype must be a dtype, got 'floaty'"),
    ({"dtype": int}, TypeError, "dtype must be a floating-point dtype, got int"),
    ({"param_dtype": bool}, TypeError, "param_dtype must be a floating-point dtype, got bool"),
    ({"implementation": "xls"}, ValueError, "implementation must be one of"),
    ({"rngs": 0}, TypeError, r"rngs must be an Rngs, got int; pass nnx.Rngs\(0\)"),
    ({"rngs": 0, "score": None}, TypeError, "rngs must be an Rngs, got int"),
    ({"rngs": jax.random.key(0)}, TypeError, "rngs must be an Rngs"),
]


@table(MODULE)
def test_module(arguments, error, message):
    refused(lnpool.nn.LearnedNormPool, {"features": 6, "rngs": nnx.Rngs(0), **arguments}, error, message)


MODULE_CALL = [
    ({"states": jnp.ones((2, 5, 4))}, ValueError, r"states must have shape \[\*B T D\] with D = 6, got \(2, 5, 4\)"),
    ({"states": jnp.ones(6)}, ValueError, "states must have shape"),
    ({"states": [[1.0] * 6]}, TypeError, "states must be an array, got list"),
    ({"states": jnp.ones((2, 5, 6), int)}, TypeError, "states must be floating point, got int32"),
    ({"mask": jnp.ones((2, 4), bool)}, ValueError, r"mask must have shape .* to \(2, 5\) .* got \(2, 4\)"),
    ({"mask": jnp.ones((2, 5, 1), bool)}, ValueError, "mask must have shape"),
    ({"mask": jnp.ones((2, 5))}, TypeError, "mask must be boolean"),
    ({"scores": jnp.ones((2, 4))}, ValueError, "scores must have shape"),
    ({"scores": jnp.ones((2, 4)), "return_weights": True}, ValueError, "scores must have shape"),
]


@table(MODULE_CALL)
def test_module_call(arguments, error, message):
    module = lnpool.nn.LearnedNormPool(6, rngs=nnx.Rngs(0))
    refused(module, {"states": STATES, **arguments}, error, message)
    if "scores" not in arguments:
        refused(module.scorer, {"states": STATES, **arguments}, error, message)


def test_huge_integers_are_exponents():
    """An exponent that float32 cannot hold acts as an infinite one, Python integers included."""
    np.testing.assert_array_equal(lnpool.pool(STATES, SCORES, 10**40), lnpool.pool(STATES, SCORES, np.inf))
    np.testing.assert_array_equal(lnpool.pool(STATES, SCORES, -(10**40)), lnpool.pool(STATES, SCORES, -np.inf))


def test_empty_batch():
    assert lnpool.pool(STATES[:0], SCORES[:0], 2.0).shape == (0, 6)
    assert jax.grad(lambda x: jnp.sum(lnpool.pool(x, SCORES[:0], 2.0)))(STATES[:0]).shape == (0, 5, 6)
