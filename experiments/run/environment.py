"""The versions, devices and settings that a result depends on, and the memory that a process has used."""

import os
import platform
import re
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from experiments.base import devices


def environment() -> dict[str, Any]:
    """Return the versions, the devices and the settings of JAX that a result depends on."""
    packages, used = ("jax", "jaxlib", "flax", "optax", "numpy"), devices.in_use()
    settings = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{len(used)} x {used[0].device_kind}",
        "processes": jax.process_count(),
        # The cores that this process may use: results repeat bit for bit only where their number is the same.
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        **{setting: getattr(jax.config, setting) for setting in settings},
    }


def peak_memory() -> int:
    """Return the largest number of bytes that this process has held in main memory."""
    status = Path("/proc/self/status")  # Linux: what getrusage says there begins with the memory of the parent process
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
