"""Linear layers whose matrix W is normalised before it is used, y = x W' + b: W' is made anew at every call.

`nnx.WeightNorm` and `nnx.SpectralNorm` are not used. flax 0.11.2, which the harness supports, has neither. In 0.12 both
overwrite W by W' when they are called, so that a question to a model changes its parameters, and the lengths of
`nnx.WeightNorm` are no `nnx.Param`, so that no optimiser learns them; `tests/harness/test_normalised.py` shows both.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from experiments.base.options import added

Normalisation: TypeAlias = Annotated[Literal["none", "weight", "spectral"], added("none")]
"""The rows of `LINEAR`, as an option."""
REFINED = 15
"""Steps of the power iteration before the first call, so that the first estimate is near."""


class Normalised(nnx.Module):
    """y = x W' + b; W and b begin as those of `nnx.Linear`."""

    def __init__(self, features: int, outputs: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (features, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def matrix(self) -> Float[Array, "I O"]:
        """Return W'."""
        raise NotImplementedError

    def __call__(self, inputs: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Return x W' + b."""
        return inputs @ self.matrix() + self.bias[...]


class WeightNorm(Normalised):
    """W' = g W / |W|, output by output: the direction of a column of W, and a learned length g.

    Source: Salimans and Kingma, "Weight normalization: a simple reparameterization to accelerate training of deep
    neural networks" (NIPS 2016), eq. 2. At first g = |W|, so that W' = W. A column of zeros stays one.
    """

    def __init__(self, features: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(features, outputs, rngs=rngs)
        self.length = nnx.Param(jnp.linalg.norm(self.kernel[...], axis=0))

    def matrix(self) -> Float[Array, "I O"]:
        """Return W'."""
        return self.length[...] * unit(self.kernel[...])


class SpectralNorm(Normalised):
    """W' = W / s, where s is the largest singular value of W: |x W' - y W'| <= |x - y|.

    Source: Miyato, Kataoka, Koyama and Yoshida, "Spectral normalization for generative adversarial networks" (ICLR
    2018), algorithm 1. s is estimated by |W u|, which is never too large. `direction` u is drawn at random and belongs
    to the state of a run: a step of training takes a step of the power iteration, u <- W^T W u / |W^T W u|, and nothing
    else moves u. It is a constant of the gradient, ds/dW = v u^T with v = W u / s. A matrix of zeros stays one.
    """

    def __init__(self, features: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(features, outputs, rngs=rngs)
        self.use_running_average = True  # the name by which flax switches between training and evaluation
        self.direction = nnx.BatchStat(unit(jax.random.normal(rngs.params(), (outputs,))))
        for _ in range(REFINED):
            self.advance()

    def advance(self) -> None:
        """Take a step of the power iteration."""
        kernel = jax.lax.stop_gradient(self.kernel[...])
        self.direction[...] = unit(kernel.T @ (kernel @ self.direction[...]))

    def largest(self) -> Float[Array, ""]:
        """Return the estimate of the largest singular value."""
        image = self.kernel[...] @ self.direction[...]
        return jax.lax.stop_gradient(unit(image)) @ image

    def matrix(self) -> Float[Array, "I O"]:
        """Return W', in training after a step of the power iteration."""
        if not self.use_running_average:
            self.advance()
        largest = self.largest()
        return self.kernel[...] / jnp.where(largest > 0, largest, 1)


def unit(columns: Float[Array, "I *O"]) -> Float[Array, "I *O"]:
    """Return columns of length 1; zeros stay zeros, and so does their gradient."""
    square = jnp.square(columns).sum(axis=0)
    return columns * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


LINEAR: dict[str, Callable[..., Any]] = {"none": nnx.Linear, "weight": WeightNorm, "spectral": SpectralNorm}
"""Linear layers, of (features, outputs, rngs=...), by how their matrix is normalised."""
