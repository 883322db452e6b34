"""The two compiled functions of a run: one training step and one evaluation step."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import build
from experiments.config import Config
from experiments.contracts import Batch, Metrics, Task
from experiments.errors import NonFiniteError
from experiments.model import leaf_name


class State(NamedTuple):
    """All that a training step changes."""

    parameters: nnx.State
    optimizer: optax.OptState
    step: jax.Array


class StepReport(NamedTuple):
    """What a training step tells: loss, real tokens, norms of the gradients in the order of the parameters."""

    loss: jax.Array
    tokens: jax.Array
    norms: list[jax.Array]


class PerShape:
    """A jitted function that compiles once a shape of its batch, and knows how often and how long it compiled.

    The batch is the last argument; the other arguments keep their shapes, and those in `first` are the same at every
    call: what is passed is no constant of the program, so runs that differ in the seed compile the same one.
    """

    def __init__(self, function: Callable, *first: Any, **jit_options: Any):
        self._jitted = jax.jit(function, **jit_options)
        self._first = first
        self._programs: dict[tuple[int, ...], Any] = {}
        self.seconds = 0.0

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._programs)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of the batch's shape."""
        arguments = self._first + arguments
        shape = arguments[-1].tokens.shape
        if shape not in self._programs:
            began = time.perf_counter()
            self._programs[shape] = self._jitted.lower(*arguments).compile()
            self.seconds += time.perf_counter() - began
        return self._programs[shape](*arguments)


class Programs(NamedTuple):
    """The compiled functions, and the way from parameters back to a module."""

    train: PerShape
    evaluate: PerShape
    module: Callable[[nnx.State], Any]


def prepare(config: Config, task: Task) -> tuple[State, Programs]:
    """Return the state of step 0 and the programs."""
    model = build.model(config, len(task.vocabulary), len(task.labels))
    build.read_vectors(model, config, task.vocabulary)
    graph, *states = nnx.split(model, nnx.Param, ...)
    parameters, rest = states
    optimizer = build.optimizer(config.optim, parameters, config.epochs * task.steps_per_epoch)
    noise = build.stream(config.seed, "dropout")

    def module(parameters: nnx.State) -> Any:
        return nnx.merge(graph, parameters, rest)

    def loss_of(parameters: nnx.State, batch: Batch, key: jax.Array) -> jax.Array:
        logits, _ = module(parameters)(batch.tokens, batch.mask, nnx.Rngs(dropout=key))
        return task.loss(logits, batch)

    def train(noise: jax.Array, state: State, batch: Batch) -> tuple[State, StepReport]:
        key = jax.random.fold_in(noise, state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.parameters, batch, key)
        norms = [jnp.sqrt(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradients)]
        updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        state = State(optax.apply_updates(state.parameters, updates), moments, state.step + 1)
        return state, StepReport(loss, batch.mask.sum(), norms)

    def evaluate(parameters: nnx.State, batch: Batch) -> Metrics:
        logits, _ = module(parameters)(batch.tokens, batch.mask)
        return task.metrics(logits, batch)

    state = State(parameters, optimizer.init(parameters), jnp.zeros((), jnp.int32))
    return state, Programs(PerShape(train, noise, donate_argnums=1), PerShape(evaluate), module)


def check_finite(report: StepReport, parameters: nnx.State, step: int) -> None:
    """Raise NonFiniteError naming the step and the first leaf whose gradient is not finite."""
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]
    broken = [name for name, norm in zip(names, report.norms, strict=True) if not math.isfinite(norm)]
    if broken or not math.isfinite(report.loss):
        where = f"first in the gradient of {broken[0]!r}" if broken else "in the loss alone"
        advice = "try a smaller --optim.learning-rate"
        raise NonFiniteError(f"not finite at step {step}, {where} (loss {report.loss}): {advice}.")
