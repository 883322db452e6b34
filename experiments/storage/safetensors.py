"""The parameters of a model in a file of the safetensors format (`experiments.base.safetensors`)."""

import jax
from flax import nnx

from experiments.base.safetensors import array, entries
from experiments.layers.text_model import leaf_name
from experiments.storage.parameters import check_like, check_names

SAFETENSORS = "parameters.safetensors"


def parse(content: bytes, where: str, expected: nnx.State) -> nnx.State:
    """Return the parameters that a file holds: those whose names, shapes and types are as expected."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    wanted = {leaf_name(path): leaf for path, leaf in leaves}
    found = entries(content, where)
    check_names(where, wanted.keys(), found.keys())
    for name, entry in found.items():
        check_like(where, name, entry.shape, entry.dtype, wanted[name])
    return jax.tree.unflatten(structure, [jax.numpy.asarray(array(content, found[name])) for name in wanted])
