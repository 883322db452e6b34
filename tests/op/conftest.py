"""The op must not lean on implicit broadcasting of ranks (dtypes: `test_strict_dtype_promotion`), and must not warn."""

from pathlib import Path

import jax
import pytest

# Warnings are errors here, but for these, each of a dependency and about no code of the library:
EXCUSED = (
    "ignore:.*Triton.*:DeprecationWarning",  # Pallas, of its lowering for GPUs: docs/design.md says why it is used
    "ignore:.*jax.pmap.*:DeprecationWarning",  # the tests call it because users still do
)
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error", *EXCUSED))


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield
