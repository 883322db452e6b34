"""Before JAX starts: eight host devices, and checked shapes and types in every lnpool function."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

from tests.op import typechecker

install_import_hook("lnpool", f"{typechecker.__name__}.checked")
