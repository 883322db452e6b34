"""The JSON file of a run: what was measured, and on what."""

import importlib.util
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from benchmarks import torch_rows
from benchmarks.cli import UsageError

Record = dict[str, Any]


def environment() -> dict[str, Any]:
    """Return the device, the versions and all else that a time depends on."""
    packages = [name for name in ("jax", "jaxlib", "numpy", "torch") if importlib.util.find_spec(name)]
    torch = torch_rows.torch
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {"XLA": "one a core", **({"PyTorch": torch.get_num_threads()} if torch else {})},
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "variables": {name: os.environ[name] for name in ("XLA_FLAGS", "OMP_NUM_THREADS") if name in os.environ},
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """Return the model of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def load_average() -> list[float]:
    """Return the load of the machine over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else []


def write(path: Path, record: Record) -> None:
    """Write a record."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read a record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        record = None
    if not (isinstance(record, dict) and record.get("cells")):
        raise UsageError(f"{path} holds no measurement: give a file that benchmarks.pool wrote with --out")
    return record
