"""Every GPU kernel compiled for an H100 without one, and its machine code counted. Needs no driver, but:

    pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12   # the first two as new as jax
    PATH=<site-packages>/nvidia/cuda_nvcc/bin:$PATH JAX_PLATFORMS=cpu pytest -m compile --optimised \
        -s tests/op/test_gpu_compile.py

Speed needs a card. What is counted here are registers that spilled to memory, atomics, exponentials and launches.
"""

import re
import subprocess

import pytest

import lnpool
from lnpool._pallas import tiling
from tests.op import compiling
from tests.op.cases import BOUNDED, FIXED, LOG

pytestmark = pytest.mark.compile

NAMES = {"lnpool_sums", "lnpool_gradients"}
ATOMIC = re.compile(r"^\s*(?:@%\w+\s+)?(?:atom|red)\.", re.MULTILINE)
EXPONENTIAL = "ex2.approx"
CASES = {
    "linear": ((32, 2048, 512), {}),
    "linear_bfloat16": ((32, 2048, 512), {"dtype": "bfloat16"}),
    "log": ((8, 300, 512), dict(LOG)),
    **{limit: ((8, 70, 300), {"scale_limit": limit}) for limit in lnpool.SCALE_LIMITS},
    "tanh_bfloat16": ((8, 70, 384), {"scale_limit": "tanh", "dtype": "bfloat16"}),
    "heads": ((8, 512, 768), {"heads": 12, "p": (12,)} | dict(LOG)),
    "odd_heads": ((3, 7, 6), {"heads": 3, "dtype": "bfloat16"}),
    "head_per_feature": ((2, 40, 64), {"heads": 64}),
    "p_feature": ((8, 512, 768), {"p": (768,), "dtype": "bfloat16"} | dict(BOUNDED)),
    "fixed": ((8, 512, 300), dict(FIXED)),
    "one": ((3, 1, 1), {}),
    "full_long": ((2, 5000, 1024), {"masked": False}),
    "wide_odd": ((2, 100, 4097), {}),
    "packed": ((128, 16384, 512), {"packed": True}),
    "packed_bfloat16": ((128, 16384, 512), {"packed": True, "dtype": "bfloat16"} | dict(BOUNDED)),
    "packed_heads": ((16, 1000, 768), {"heads": 12, "p": (12,), "packed": True} | dict(LOG)),
    "packed_feature": ((16, 1000, 300), {"p": (300,), "packed": True, "scale_limit": "softplus"}),
    "packed_odd": ((5, 37, 6), {"heads": 3, "dtype": "bfloat16", "packed": True}),
    "packed_long": ((5, 400_000, 512), {"packed": True, "masked": False}),  # more blocks than an axis of a grid takes
}


def kernels(tmp_path, shape, **options):
    """The PTX of every kernel of ours by name, and the program."""
    dump = {"xla_dump_to": str(tmp_path)}
    executable = compiling.compiled("gpu", shape, "pallas", compiler_options=dump, **options)
    texts = (path.read_text() for path in tmp_path.glob("*.ptx"))
    found = {name: text for text in texts for name in re.findall(r"\.entry (lnpool_\w+)", text)}
    return found, executable


def launches(executable):
    return len(re.findall(r"custom_call_target=\"__gpu\$xla.gpu.triton\"|kind=kCustom.*lnpool_", executable.as_text()))


def spilled(tmp_path, text):
    """Bytes that ptxas stores because the registers do not suffice, and the registers of a thread."""
    source = tmp_path / "kernel.ptx"
    source.write_text(text)
    target = re.search(r"\.target (\w+)", text)[1]
    command = ["ptxas", "-v", f"--gpu-name={target}", "-o", str(tmp_path / "kernel.cubin"), str(source)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"(\d+) bytes spill stores", log)[1]), int(re.search(r"Used (\d+) registers", log)[1])


@pytest.mark.parametrize("name", CASES)
def test_every_kernel_compiles(name, tmp_path):
    shape, options = CASES[name]
    found, executable = kernels(tmp_path, shape, **options)
    names = NAMES | {"lnpool_merge"} if "packed" in options else NAMES
    assert set(found) == names
    assert launches(executable) == len(names)
    for kernel, text in found.items():
        stores, registers = spilled(tmp_path, text)
        print(f"{name} {kernel}: {registers} registers, {text.count(EXPONENTIAL)} exponentials")
        assert stores == 0
        assert not ATOMIC.search(text)


def test_the_bounded_forward_has_one_exponential_an_element(tmp_path):
    """Of value and slope together; a thread owns the columns of one step's tokens."""
    batch, tokens, features = shape = (32, 2048, 512)
    found, _ = kernels(tmp_path, shape, **dict(BOUNDED))
    cut = tiling.columns(batch, tokens, 1, features)
    threads = int(re.search(r"\.reqntid (\d+)", found["lnpool_sums"])[1])
    assert found["lnpool_sums"].count(EXPONENTIAL) == tiling.UNROLL * cut.features // threads
