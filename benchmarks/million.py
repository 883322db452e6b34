"""One document of a million tokens, split over eight devices: `python -m benchmarks.million`.

On a machine without accelerators the devices are threads of the CPU. The states and their gradient stay where they
are; what meets are a few numbers a feature. Prints how far value and gradients are from those of one device.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lnpool
from benchmarks.cli import Parser, UsageError, command

PROGRAM = "benchmarks.million"
DEVICES = 8


def pooled(states: Array, scores: Array, p: Array, axis_name: str | None = None) -> Array:
    """Pool raw states [1 T D] with scores [1 T]."""
    return lnpool.pool(states, scores, p, scale_limit="tanh", axis_name=axis_name)


def run(arguments: list[str]) -> None:
    """Parse, pool sharded and whole, print the differences."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="Pool one long document over several devices.")
    parser.add_argument("--tokens", type=int, default=1_000_000, metavar="T", help="default: a million")
    parser.add_argument("--features", type=int, default=64, metavar="D", help="default: 64")
    options = parser.parse_args(arguments)
    if options.tokens < 1 or options.tokens % DEVICES or options.features < 1:
        raise UsageError(f"--tokens must be a positive multiple of {DEVICES} and --features at least 1")
    mesh = jax.make_mesh((DEVICES,), ("tokens",), axis_types=(AxisType.Auto,))
    split = PartitionSpec(None, "tokens")
    rng = np.random.default_rng(0)
    states = rng.standard_normal((1, options.tokens, options.features), dtype=np.float32)
    scores = rng.standard_normal((1, options.tokens), dtype=np.float32)
    weights = rng.standard_normal((1, options.features), dtype=np.float32)

    sharded = jax.shard_map(
        lambda states, scores, p: pooled(states, scores, p, "tokens"),
        mesh=mesh,
        in_specs=(split, split, PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    results = {}
    for name, pool in {"one device": pooled, f"{DEVICES} devices": sharded}.items():
        grad = jax.jit(
            jax.value_and_grad(lambda s, z, p, pool=pool: jnp.sum(weights * pool(s, z, p)), argnums=(0, 1, 2))
        )
        place = NamedSharding(mesh, split) if pool is sharded else jax.devices()[0]
        arrays = (jax.device_put(states, place), jax.device_put(scores, place), jnp.float32(2.5))
        jax.block_until_ready(grad(*arrays))
        began = time.perf_counter()
        value, gradients = jax.block_until_ready(grad(*arrays))
        seconds = time.perf_counter() - began
        results[name] = jax.tree.map(np.asarray, (value, *gradients))
        print(f"{name}: forward and backward over {options.tokens} x {options.features} in {seconds:.2f} s")
    whole, pieces = results.values()
    for name, x, y in zip(("value", "d states", "d scores", "d p"), pieces, whole, strict=True):
        print(f"largest difference of {name}, relative to the largest: {np.abs(x - y).max() / np.abs(y).max():.1e}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if jax.default_backend() == "cpu" and jax.device_count() < DEVICES:
        print(f"{PROGRAM}: set XLA_FLAGS=--xla_force_host_platform_device_count={DEVICES}", file=sys.stderr)
        return 2
    return command(PROGRAM, run, arguments)


if __name__ == "__main__":
    # Before the first use of a device: on a CPU, threads act as devices.
    jax.config.update("jax_num_cpu_devices", DEVICES)
    sys.exit(main())
