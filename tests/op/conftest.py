"""The op must never lean on implicit broadcasting of ranks or on implicit promotion of dtypes."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("standard"):
        yield
