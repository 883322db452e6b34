"""Many devices: every batch is cut over them by rows; the state is replicated, or sharded by one rule.

There is one mesh of one axis, JAX's mesh of the context while a run lasts; all functions here look there. With one
device there is no mesh, and they give back what they get. Where functions say "outside", they are for arrays, else for
what is traced.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh, get_mesh

from experiments.base.errors import UsageError
from experiments.base.meeting import meet
from experiments.base.options import NOT_DECISIVE, Interval

AXIS = "data"
REPLICATED, ROWS = PartitionSpec(), PartitionSpec(AXIS)
SMALLEST = 2**14  # numbers of an array, below which its shares would be too small to be worth their exchange
AUTO = "auto"
PATIENCE = 10  # seconds for which a process that ends waits for the others; then JAX ends all of them


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """Devices and processes that share a run; they change its result only by the order of sums (docs/devices.md)."""

    count: Annotated[int, Interval("[0, 1000000]"), NOT_DECISIVE] = 0
    """Devices to use, 0 for all; several processes always use all."""
    parameters: Annotated[Literal["replicated", "sharded"], NOT_DECISIVE] = "replicated"
    """Whether every device keeps the whole state, or a share of each large array of it."""
    coordinator: Annotated[str | None, NOT_DECISIVE] = None
    """HOST:PORT where process 0 waits for the others; auto under SLURM, Open MPI or Kubernetes, or on a TPU pod."""
    processes: Annotated[int, Interval("[1, 1000000]"), NOT_DECISIVE] = 1
    """Number of processes; auto finds it."""
    process: Annotated[int, Interval("[0, 999999]"), NOT_DECISIVE] = 0
    """Number of this process, from 0; auto finds it."""
    wait: Annotated[float, Interval("[1, 86400]"), NOT_DECISIVE] = 120.0
    """Seconds in which all processes must have come to the coordinator."""

    @property
    def sharded(self) -> bool:
        """Whether large arrays of the state are cut."""
        return self.parameters == "sharded"


def is_alone() -> bool:
    """Tell whether this is the only process of the run."""
    return jax.process_count() == 1


@contextmanager
def distributed(options: DeviceOptions) -> Iterator[None]:
    """Be one of several processes inside the block, where the options say so; must come before anything is computed."""
    coordinator, processes, process = options.coordinator, options.processes, options.process
    if coordinator is None:
        if processes > 1 or process > 0:
            raise UsageError("several processes need --devices.coordinator: give the HOST:PORT of process 0.")
        yield
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == AUTO:
        _initialize(options)
    else:
        if process >= processes:
            raise UsageError(f"--devices.process {process} is not below --devices.processes {processes}.")
        meet(coordinator, process, processes, options.wait)
        _initialize(options, coordinator_address=coordinator, num_processes=processes, process_id=process)
    yield
    # Only after success: a process that fails leaves at once, and JAX ends the others.
    multihost_utils.sync_global_devices("done")
    jax.distributed.shutdown()


def _initialize(options: DeviceOptions, **arguments: Any) -> None:
    limits: dict[str, Any] = {"initialization_timeout": math.ceil(options.wait), "shutdown_timeout_seconds": PATIENCE}
    try:
        jax.distributed.initialize(**limits, **arguments)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the processes did not meet ({reason}): see --devices.coordinator.") from None


def available() -> int:
    """Return the number of devices of all processes: what is used where no number is given."""
    return jax.device_count()


@contextmanager
def mesh(options: DeviceOptions, batch_size: int) -> Iterator[None]:
    """Put the chosen devices into the context; none where there is one. Raise UsageError where they do not suit."""
    count, there = options.count or available(), jax.device_count()
    if count > there or (count < there and jax.process_count() > 1):
        advice = "several processes use all" if count < there else "choose fewer"
        raise UsageError(f"--devices.count {count}: there are {there} devices, {advice}.")
    if batch_size % count:
        nearest = max(round(batch_size / count), 1) * count
        advice = f"choose {nearest}, or another --devices.count"
        raise UsageError(f"--data.batch-size {batch_size} cannot be cut over {count} devices: {advice}.")
    if count == 1:
        yield
        return
    # The devices of a process lie side by side, and so do its rows.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))[:count]
    with jax.set_mesh(Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))):
        yield


def in_use() -> list[Any]:
    """Return the devices of this run (outside)."""
    return jax.devices()[:1] if get_abstract_mesh().empty else list(get_mesh().devices.flat)


def is_first() -> bool:
    """Tell whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def agree(number: int) -> int:
    """Return the largest of the numbers with which the processes call this, all at the same place (outside)."""
    if is_alone():
        return number
    with jax.transfer_guard("allow"):  # a transfer that is asked for, though JAX counts it among the hidden ones
        return int(multihost_utils.process_allgather(np.int32(number)).max())


def spec(shape: tuple[int, ...], sharded: bool) -> PartitionSpec:
    """Return how an array of the state lies on the devices: the one rule.

    It is replicated, unless arrays are `sharded`, it has at least SMALLEST numbers and an axis that the number of
    devices divides: then the largest of such axes is cut.
    """
    count = math.prod(get_abstract_mesh().axis_sizes)
    axes = [axis for axis, size in enumerate(shape) if size % count == 0]
    if not (sharded and axes and math.prod(shape) >= SMALLEST):
        return REPLICATED
    return PartitionSpec(*(None,) * max(axes, key=shape.__getitem__), AXIS)


def put(tree: Any, sharded: bool = False) -> Any:
    """Return arrays, which are the same in all processes, laid out on the devices by the rule (outside)."""
    if get_abstract_mesh().empty:
        return tree
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(get_mesh(), spec(x.shape, sharded))), tree)


def constrain(tree: Any, sharded: bool = False) -> Any:
    """Return traced arrays, constrained to lie on the devices by the rule: replicated unless `sharded`."""
    if get_abstract_mesh().empty:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec(x.shape, sharded)), tree)


def put_batch(batch: Any) -> Any:
    """Return a batch of host arrays as arrays that are cut over the devices by rows (outside).

    Each process gives the rows of its own devices, which lie side by side.
    """
    if get_abstract_mesh().empty:
        return jax.device_put(batch)
    cut, process, processes = NamedSharding(get_mesh(), ROWS), jax.process_index(), jax.process_count()

    def put_rows(x: np.ndarray) -> jax.Array:
        rows = len(x) // processes
        with jax.transfer_guard("allow"):
            return jax.make_array_from_process_local_data(cut, x[process * rows : (process + 1) * rows])

    return jax.tree.map(put_rows, batch)


def gather(tree: Any) -> Any:
    """Return whole NumPy arrays, in every process; all must call this at the same place (outside)."""

    def whole(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(jax.device_get(x))
        with jax.transfer_guard("allow"):
            return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(whole, tree)
