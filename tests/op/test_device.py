"""On the device of this machine: every case against the reference on the host, repeats, temporaries.

Nothing here is about a CPU, where other tests show the same; `python -m benchmarks.device` runs it on an accelerator.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lnpool
from tests.op.cases import CASES, arrays
from tests.op.test_conformance import assert_right, call, expected
from tests.op.test_memory import FORMS, shapes, temporary_share
from tests.op.tolerances import TEMPORARY_SHARE

pytestmark = pytest.mark.gpu
IMPLEMENTATIONS = ("xla", "xla_jvp", "pallas")
OF_FLOAT32 = [case for case in CASES if case.dtype != "float64"]  # which not every accelerator has


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    reason = lnpool.implementations()[request.param]
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("case", OF_FLOAT32, ids=lambda case: case.name)
def test_against_the_reference_on_the_host(case, implementation):
    a = arrays(case)
    got = call(case, a, implementation)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        expected(case)
        assert_right(case, a, *jax.device_get(got))


def test_a_repeat_gives_the_same_bits(implementation):
    case = next(case for case in CASES if case.name == "long")
    first, second = (jax.device_get(call(case, arrays(case), implementation)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("form", FORMS)
def test_no_temporary_of_the_size_of_the_states(form):
    states, scores, p, cotangent = shapes(32, 512, 768, "scalar_p")

    def both(states, scores, p, cotangent):
        pool = lambda *a: lnpool.pool(*a, implementation="xla", **FORMS[form])  # noqa: E731
        value, pullback = jax.vjp(pool, states, scores, p)
        return value, *pullback(jnp.asarray(cotangent))

    assert temporary_share(both, states, scores, p, cotangent) < TEMPORARY_SHARE
