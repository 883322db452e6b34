"""The op must not lean on implicit broadcasting of ranks (dtypes: `test_strict_dtype_promotion`)."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield
