"""What objectives begin with: the defaults of the contract, and the model of one encoder and one pooler."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.contracts import Batch, Last, Mean, Outputs, Parts, Words

SCORES = "attention_scores"
"""The output that holds scores of attention which were put in place of the pooler's own."""
Module = TypeVar("Module")


class Model(nnx.Module):
    """The defaults of the contract of objectives (`experiments.base.contracts.Objective`)."""

    pools: ClassVar[bool] = True
    contrasts: ClassVar[bool] = False
    guided: ClassVar[Literal["", "loss", "outputs"]] = ""
    shares: ClassVar[tuple[str, ...]] = ()

    @property
    def p(self) -> Any:
        """The exponent, or exponents, of the poolers; None where they have none."""
        return None

    @property
    def term_weights(self) -> Mapping[str, float]:
        """The weights of loss terms that are not 1."""
        return {}

    def scalars(self, outputs: Outputs, batch: Batch) -> Mapping[str, Mean | Last]:
        """Log nothing beside the loss terms and the metrics."""
        return {}

    def weights(self, outputs: Outputs) -> Outputs:
        """Return the attention, where there is one."""
        return {name: outputs[name] for name in ("attention",) if name in outputs}


class TextModel(Model):
    """One encoder and one pooler; the mask goes with the tokens to the encoder, and one comes with the states.

    The encoder computes in the dtype of the configuration; parameters are float32, and so is what poolers sum.
    """

    def __init__(self, parts: Parts, words: Words | None = None, pooler: str = "", *, rngs: nnx.Rngs):
        self.encoder = parts.encoder(words, rngs=rngs)
        self.pooler = parts.pooler(self.encoder.features, pooler, rngs=rngs)
        self.compute = parts.compute

    @property
    def p(self) -> Any:
        """The exponent of the pooler; None where it has none."""
        return getattr(self.pooler, "p", None)

    def weights(self, outputs: Outputs) -> Outputs:
        """Return what the pooler says of the tokens; its attention where it says nothing."""
        if hasattr(self.pooler, "weights"):
            return self.pooler.weights(outputs["states"], outputs["mask"], outputs.get(SCORES))
        return super().weights(outputs)

    def levels(self, batch: Batch) -> Float[Array, "L B T"]:
        """Return the levels of the words in every layer; the encoder must have `levels`, as that of `onlstm`."""
        encoder: Any = self.encoder
        return encoder.levels(batch.tokens, batch.mask)

    def __call__(self, batch: Batch, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs of a batch: what is read of it and what is answered."""
        return self.answer(self.read(batch, rngs), rngs)

    def read(self, batch: Batch, rngs: nnx.Rngs | None) -> dict[str, Array]:
        """Return `states` and their `mask`, `pooled` and the arrays of the pooler, as `attention`."""
        states, mask = getattr(batch, "states", None), batch.mask
        if states is None:  # the batch brings none
            states, mask = in_dtype(self.encoder, self.compute)(batch.tokens, mask, rngs)
        pooled, shown = self.pooler(states, mask)
        return {"states": states, "mask": mask, "pooled": pooled, **shown}

    def answer(self, outputs: Outputs, rngs: nnx.Rngs | None = None) -> Outputs:
        """Return the outputs with what the objective makes of `pooled`; nothing where `__call__` is its own."""
        return outputs

    def with_scores(self, outputs: Outputs, scores: Float[Array, "B T *H"]) -> Outputs:
        """Return the outputs of the same states under other scores of attention; the encoder does not run again."""
        pooler: Any = self.pooler
        pooled, shown = pooler(outputs["states"], outputs["mask"], scores)
        return self.answer({**outputs, "pooled": pooled, **shown, SCORES: scores})


def leaf_name(path: tuple[Any, ...]) -> str:
    """Return the dotted name of a parameter from its key path: `pooler.pool.rho`."""
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


def is_exponent(path: tuple[Any, ...]) -> bool:
    """Tell whether a parameter is the raw exponent of a pooler; such parameters are named `rho`."""
    return leaf_name(path).split(".")[-1] == "rho"


def exponents(parameters: Any) -> list[bool]:
    """Return for every parameter whether it is the raw exponent of a pooler, in the order of the leaves."""
    return [is_exponent(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]


def in_dtype(encoder: Module, dtype: str) -> Module:
    """Return an encoder, or what is made of some, in a dtype: that of its parameters, but for those of a pooler inside.

    A parameter of float32 beside states of bfloat16 makes the result float32, which is what poolers are to sum.
    """
    if dtype == "float32":
        return encoder

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf if "pooler" in leaf_name(path).split(".") else leaf.astype(dtype)

    graph, state = nnx.split(encoder)
    return nnx.merge(graph, jax.tree_util.tree_map_with_path(cast, state))
