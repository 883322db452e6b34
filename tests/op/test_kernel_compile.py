"""Every kernel, and the portable form, compiled for a TPU v5e without one. Needs libtpu and nothing else:

    pip install "libtpu==0.0.42.*"
    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu pytest -m compile --optimised -s tests/op/test_kernel_compile.py

Passes are counted on states that do not fit into VMEM: smaller ones XLA copies there first, which counts twice. The
compiler cannot look into a kernel and takes the kernel's own estimate, one pass forward and two backward; how often a
block is fetched follows from the index maps (tiling.fetched_bytes). What is measured here is everything around it.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lnpool
from lnpool._pallas import compat
from lnpool._types import Residuals
from tests.op import compiling
from tests.op.cases import BOUNDED, FIXED, LOG
from tests.op.running import value_and_gradients

pytestmark = pytest.mark.compile

FORWARD, BOTH = 1.05, 3.1  # passes over the states
SMALL = 0.05  # of the states: temporaries


devices = functools.partial(compiling.devices, "tpu")
compiled = functools.partial(compiling.compiled, "tpu")


def passes(executable, shape, dtype="float32"):
    """Bytes that the program reads and writes, by the compiler's count, over the bytes of the states."""
    return executable.cost_analysis()["bytes accessed"] / (np.prod(shape) * jnp.dtype(dtype).itemsize)


def launches(executable):
    return len(re.findall(r"custom-call\(.*tpu_custom_call", executable.as_text()))


def report(name, executable, shape, dtype="float32"):
    temporary = executable.memory_analysis().temp_size_in_bytes / (np.prod(shape) * jnp.dtype(dtype).itemsize)
    text = f"{name}: {passes(executable, shape, dtype):.3f} passes, {temporary:.3f} temporary"
    print(f"{text}, {launches(executable)} kernels")


LARGE = (32, 2048, 512)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "full"])
@pytest.mark.parametrize("options", [dict(BOUNDED), {"scale_limit": "tanh"}], ids=["bounded", "tanh"])
def test_portable_form_reads_once(options, masked, monkeypatch):
    """The program of the single pass: the compiler would count the exact form with it, which a condition leaves out."""
    monkeypatch.setattr(jax.lax, "cond", lambda condition, single, exact: single())
    forward, both = (compiled(LARGE, "xla", masked=masked, backward=b, **options) for b in (False, True))
    report("xla forward", forward, LARGE)
    report("xla forward+backward", both, LARGE)
    assert launches(both) == 0
    assert passes(forward, LARGE) <= FORWARD
    assert passes(both, LARGE) <= BOTH


@pytest.mark.parametrize(
    "options", [{}, dict(LOG), dict(BOUNDED), {"scale_limit": "sigmoid"}], ids=["linear", "log", "bounded", "sigmoid"]
)
def test_kernels_read_once(options):
    """Linear states and free log states too, whose largest state no promise bounds."""
    forward, both = (compiled(LARGE, "pallas", backward=b, **options) for b in (False, True))
    report("pallas forward", forward, LARGE)
    report("pallas forward+backward", both, LARGE)
    assert (launches(forward), launches(both)) == (1, 2)
    assert passes(forward, LARGE) <= FORWARD
    assert passes(both, LARGE) <= BOTH
    for executable in (forward, both):
        assert executable.memory_analysis().temp_size_in_bytes < SMALL * 4 * np.prod(LARGE)


PACKED = (128, 16384, 512)


@pytest.mark.parametrize("options", [{}, dict(BOUNDED)], ids=["linear", "bounded"])
def test_packed_texts_need_no_rows(options):
    """No array of the size of the states but their gradient, where the portable form gathers rows.

    Passes are printed, not judged: the compiler counts a gather of scores as if every element read a whole row of
    memory. What the kernels fetch follows from tiling.steps.
    """
    kernels, portable = (compiled(PACKED, name, packed=True, masked=False, **options) for name in ("pallas", "xla"))
    report("pallas packed", kernels, PACKED[1:])
    report("xla packed", portable, PACKED[1:])
    assert launches(kernels) == 2
    texts, tokens, features = PACKED
    known = len(Residuals._fields) * texts  # rows of what the backward pass keeps of every text
    assert kernels.memory_analysis().temp_size_in_bytes < 4 * (known + SMALL * tokens) * features


CASES = {
    **{limit: ((8, 70, 300), {"scale_limit": limit}) for limit in lnpool.SCALE_LIMITS},
    **{f"{x}_bfloat16": ((8, 70, 384), {"scale_limit": x, "dtype": "bfloat16"}) for x in lnpool.SCALE_LIMITS},
    "heads": ((8, 512, 768), {"heads": 12, "p": (12,)} | dict(LOG)),
    "heads_across_blocks": ((8, 512, 640), {"heads": 5, "p": (5,)}),
    "odd_heads": ((3, 7, 6), {"heads": 3, "dtype": "bfloat16"}),
    "most_heads": ((2, 40, 64), {"heads": 16}),
    "p_feature": ((8, 512, 768), {"p": (768,), "dtype": "bfloat16"} | dict(BOUNDED)),
    "fixed": ((8, 512, 300), dict(FIXED)),
    "one": ((3, 1, 1), {}),
    "one_token": ((3, 1, 300), {"dtype": "bfloat16"}),
    "long": ((2, 32768, 256), {}),
    "full_long": ((2, 5000, 1024), {"masked": False}),
    "wide": ((2, 100, 4096), {"dtype": "bfloat16"}),
    "wide_odd": ((2, 100, 4097), {}),
    "packed_heads": ((16, 1000, 768), {"heads": 12, "p": (12,), "packed": True} | dict(LOG)),
    "packed_feature": ((16, 1000, 300), {"p": (300,), "packed": True, "scale_limit": "softplus"}),
    "packed_odd": ((5, 37, 6), {"heads": 3, "dtype": "bfloat16", "packed": True}),
}


def test_portable_form_of_linear_states(monkeypatch):
    """Printed, not judged: what the kernels are compared with, the program of the single pass."""
    monkeypatch.setattr(jax.lax, "cond", lambda condition, single, exact: single())
    for name, backward in (("xla linear forward", False), ("xla linear forward+backward", True)):
        report(name, compiled(LARGE, "xla", backward=backward), LARGE)


@pytest.mark.parametrize("name", CASES)
def test_every_kernel_compiles(name):
    """The device compiler accepts layouts and the memory of the core, which interpretation does not check."""
    shape, options = CASES[name]
    executable = compiled(shape, "pallas", **options)
    report(name, executable, shape, options.get("dtype", "float32"))
    assert launches(executable) == 2


def test_kernels_under_shard_map():
    """Rows split over four devices, varying axes checked: the kernels declare theirs."""
    mesh = Mesh(np.array(devices()), ("rows",))
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()

    def local(states, scores, p, g):
        return value_and_gradients(states, scores, p, g, implementation="pallas")

    def on(spec, *shape):
        return jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, spec))

    specs = {"in_specs": (rows, rows, everywhere, rows), "out_specs": (rows, rows, rows, everywhere)}
    args = (on(rows, 8, 70, 256), on(rows, 8, 70), on(everywhere), on(rows, 8, 256))
    with compat.target("tpu"), jax.default_device(devices()[0]):
        traced = jax.jit(jax.shard_map(local, mesh=mesh, **specs)).trace(*args)
        executable = traced.lower(lowering_platforms=("tpu",)).compile()
    assert launches(executable) == 2
    assert "all-reduce" in executable.as_text()  # of the cotangent of p
