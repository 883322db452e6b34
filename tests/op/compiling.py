"""The op compiled for a device that this machine does not have: a TPU v5e by libtpu, an H100 by the CUDA plugin."""

import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import lnpool
from lnpool._pallas import compat
from tests.op.running import value_and_gradients

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 1 }
device_description_str: "H100"
"""
LOWERING = {"tpu": "tpu", "gpu": "cuda"}


@functools.cache
def devices(platform):
    """The devices of a machine that is not there; skips where the compiler is not there either."""
    if platform == "tpu":
        pytest.importorskip("libtpu", reason='no TPU compiler: pip install "libtpu==0.0.42.*"')
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        where = {"platform": "tpu", "topology_name": "v5e:2x2"}
    else:
        pytest.importorskip("jax_cuda12_plugin", reason="no CUDA compiler: pip install --no-deps jax-cuda12-plugin")
        pytest.importorskip("jax_plugins.xla_cuda12", reason="no CUDA compiler: pip install --no-deps jax-cuda12-pjrt")
        if shutil.which("ptxas") is None:
            pytest.skip("no ptxas on the PATH: pip install nvidia-cuda-nvcc-cu12, and add its bin folder")
        where = {"platform": "cuda", "target_config": H100, "topology": "1x1x1"}
    try:
        return topologies.get_topology_desc(**where).devices
    except Exception as error:  # whatever the plugin raises: it has no public error type
        pytest.skip(f"the {platform} compiler did not start: {error}")


def compiled(
    platform, shape, implementation, *, heads=None, p=(), dtype="float32", masked=True, backward=True, packed=False,
    compiler_options=None, **options,
):  # fmt: skip
    """The op compiled for a device, for rows [B T D] or, ``packed``, B texts that share T tokens.

    The exponent is a constant 2: XLA drops the form that it does not choose.
    """
    device = devices(platform)[0]
    on_device = functools.partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device))
    batch, *row, features = shape
    row = row if packed else [batch, *row]
    exponent = np.full(p, 2.0, np.float32)

    def run(pool, states, scores, mask, ids, *g):
        texts = {"segment_ids": ids, "num_segments": batch} if packed else {}
        every = {"mask": mask, "implementation": implementation} | texts | options
        return pool(states, scores, jnp.asarray(exponent), *g, **every)

    def forward(states, scores, mask, ids, g):
        return run(lnpool.pool_packed if packed else lnpool.pool, states, scores, mask, ids)

    args = (
        on_device((*row, features), dtype),
        on_device((*row, *([heads] if heads else [])), "float32"),
        on_device(row, bool) if masked else None,
        on_device(row, "int32") if packed else None,
        on_device((batch, features), dtype),
    )
    with compat.target(platform), jax.default_device(device), jax.numpy_dtype_promotion("standard"):
        traced = jax.jit(functools.partial(run, value_and_gradients) if backward else forward).trace(*args)
        return traced.lower(lowering_platforms=(LOWERING[platform],)).compile(compiler_options=compiler_options)
