"""The levels that an encoder of ordered units gives to words: distances, from which trees are cut."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Objective


def has_levels(objective: Objective) -> bool:
    """Tell whether the words of a text have levels: the model has one encoder, whose units are ordered."""
    return hasattr(objective, "levels") and hasattr(getattr(objective, "encoder", None), "levels")


def levels(objective: Objective, batch: Batch) -> Float[np.ndarray, "L B T"]:
    """Return for every layer and word the share of the memory that the word closes, without noise."""
    return np.asarray(_levels(*nnx.split(objective), batch))


@partial(jax.jit, static_argnums=0)
def _levels(graph: Any, state: nnx.State, batch: Batch) -> Array:
    return nnx.merge(graph, state).levels(batch)
