"""What a trained model says of a batch, as one program for any number of texts: predictions and exports run the same.

A program is exported by JAX with a symbolic number of rows and for all platforms, in memory; a file holds the same
module, so what a file predicts is, on the same device, what the model predicts, bit for bit.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array, export

from experiments.base.contracts import Batch, Objective
from experiments.layers.text_model import leaf_name

PLATFORMS = ("cpu", "cuda", "tpu")


class Form(NamedTuple):
    """All that a program is made of: the form of the model and that of the batches, without their number of rows."""

    graph: Any
    structure: Any
    names: tuple[str, ...]
    """Dotted names of the parameters, in the order of the structure."""
    parameters: tuple[jax.ShapeDtypeStruct, ...]
    batch_structure: Any
    batch: tuple[jax.ShapeDtypeStruct, ...]
    """One row of every array of the batch."""


def form_of(objective: Objective, batch: Batch) -> Form:
    """Return the form of a model and of a batch."""
    graph, state = nnx.split(objective)
    found, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves, batch_structure = jax.tree.flatten(batch)
    return Form(
        graph,
        structure,
        tuple(leaf_name(path) for path, _ in found),
        tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for _, leaf in found),
        batch_structure,
        tuple(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves),
    )


def parameters_of(objective: Objective) -> dict[str, Array]:
    """Return all numbers of a model, frozen ones too, by their dotted names."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(objective))}


@lru_cache(maxsize=64)
def exported(form: Form) -> export.Exported:
    """Return the program from parameters by name and a list of the arrays of a batch to what is said of every row.

    The result is a dictionary: `predictions`, a pytree of arrays [B ...], and `pooled` [B E] where the objective pools.
    """

    def answers(parameters: Mapping[str, Array], leaves: list[Array]) -> dict[str, Any]:
        state = jax.tree.unflatten(form.structure, [parameters[name] for name in form.names])
        objective = nnx.merge(form.graph, state)
        outputs = objective(jax.tree.unflatten(form.batch_structure, leaves))
        pooled = {"pooled": outputs["pooled"]} if objective.pools else {}
        return {"predictions": objective.predict(outputs), **pooled}

    (rows,) = export.symbolic_shape("b")
    leaves = [jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype) for leaf in form.batch]
    platforms = [*dict.fromkeys((*PLATFORMS, export.default_export_platform()))]
    return export.export(jax.jit(answers), platforms=platforms)(
        dict(zip(form.names, form.parameters, strict=True)), leaves
    )


@lru_cache(maxsize=64)
def compiled(form: Form) -> Callable[..., dict[str, Any]]:
    """Return the program of a form as a function that is compiled once for every number of rows."""
    return jax.jit(exported(form).call)
