"""Before JAX starts: eight host devices, and checked shapes and types in every lnpool function."""

import os
from collections import Counter

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest
from jaxtyping import install_import_hook

from tests.op import typechecker

install_import_hook("lnpool", f"{typechecker.__name__}.checked")


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run every N-th test, from the K-th on (K = 1 ... N); default: all")
    parser.addoption("--optimised", action="store_true", help="compile as users do")


def pytest_configure(config):
    """Compile without most optimisations unless told: tests compile for longer than they run.

    Without them the older emitters of XLA's CPU compiler take half the time of those that it takes by default.
    """
    fast = not config.getoption("--optimised")
    if fast:
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    jax.config.update("jax_disable_most_optimizations", fast)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(fast)  # for the processes that tests start


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    """Make most rows of what is marked `sampled` slow; cut the suite for the extra versions of CI.

    Which tests run is the same every time.
    """
    seen = Counter()
    for item in items:
        sampled = None if item.get_closest_marker("slow") else item.get_closest_marker("sampled")
        if sampled is not None:
            family = item.nodeid.partition("[")[0]
            if seen[family] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[family] += 1
    if config.getoption("--part"):
        part, parts = map(int, config.getoption("--part").split("/"))
        config.hook.pytest_deselected(items=[item for at, item in enumerate(items, 1) if at % parts != part % parts])
        items[:] = items[part - 1 :: parts]
