"""The two compiled functions of a run: one training step and one evaluation step."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import build
from experiments.clock import Clock
from experiments.config import Config
from experiments.contracts import Batch, Task
from experiments.diagnostics import Diagnostics, Evaluation, with_exponent_gradient
from experiments.errors import NonFiniteError
from experiments.model import leaf_name


class State(NamedTuple):
    """All that a training step changes."""

    parameters: nnx.State
    optimizer: optax.OptState
    average: nnx.State | None
    """Moving average of the parameters, where one is asked for."""
    step: jax.Array

    @property
    def tested(self) -> nnx.State:
        """The parameters that are validated and tested: their average, where there is one."""
        return self.parameters if self.average is None else self.average


class StepReport(NamedTuple):
    """What a training step tells: loss, real tokens, norms of the gradients in the order of the parameters."""

    loss: jax.Array
    tokens: jax.Array
    norms: list[jax.Array]


class PerShape:
    """A jitted function that compiles once a shape of its batch, and knows how often; the clock knows how long.

    The batch is the last argument; the other arguments keep their shapes.
    """

    def __init__(self, function: Callable, clock: Clock, **jit_options: Any):
        self._jitted = jax.jit(function, **jit_options)
        self._programs: dict[tuple[int, ...], Any] = {}
        self._clock = clock

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._programs)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of the batch's shape."""
        shape = arguments[-1].tokens.shape
        if shape not in self._programs:
            with self._clock.measure("compile"):
                self._programs[shape] = self._jitted.lower(*arguments).compile()
        return self._programs[shape](*arguments)


class Programs(NamedTuple):
    """The compiled functions, the way from parameters back to a module, and the clock of all of them."""

    train: PerShape
    evaluate: PerShape
    module: Callable[[nnx.State], Any]
    clock: Clock


def prepare(config: Config, task: Task) -> tuple[State, Programs]:
    """Return the state of step 0 and the programs."""
    model = build.model(config, len(task.vocabulary), len(task.labels))
    graph, *states = nnx.split(model, nnx.Param, ...)
    parameters, rest = states
    optimizer = build.optimizer(config.optim, parameters, config.epochs * task.steps_per_epoch)
    noise = build.stream(config.seed, "dropout")

    def module(parameters: nnx.State) -> Any:
        return nnx.merge(graph, parameters, rest)

    def loss_of(parameters: nnx.State, batch: Batch, key: jax.Array) -> jax.Array:
        logits, _ = module(parameters)(batch.tokens, batch.mask, nnx.Rngs(dropout=key))
        return task.loss(logits, batch)

    def train(state: State, batch: Batch) -> tuple[State, StepReport]:
        key = jax.random.fold_in(noise, state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.parameters, batch, key)
        norms = [jnp.sqrt(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradients)]
        updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = build.average(config.optim, parameters, state.average, state.step)
        return State(parameters, moments, average, state.step + 1), StepReport(loss, batch.mask.sum(), norms)

    def evaluate(parameters: nnx.State, batch: Batch) -> Evaluation:
        def summed(parameters: nnx.State) -> tuple[jax.Array, Any]:
            logits, shown = module(parameters)(batch.tokens, batch.mask)
            return task.loss(logits, batch) * batch.weights.sum(), (task.metrics(logits, batch), shown)

        (metrics, shown), gradient = with_exponent_gradient(summed, parameters)
        return Evaluation(metrics, Diagnostics.of(shown, batch, gradient))

    clock = Clock()
    average = jax.tree.map(jnp.copy, parameters) if config.optim.average else None
    state = State(parameters, optimizer.init(parameters), average, jnp.zeros((), jnp.int32))
    return state, Programs(PerShape(train, clock, donate_argnums=0), PerShape(evaluate, clock), module, clock)


def check_finite(report: StepReport, parameters: nnx.State, step: int) -> None:
    """Raise NonFiniteError naming the step and the first leaf whose gradient is not finite."""
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]
    broken = [name for name, norm in zip(names, report.norms, strict=True) if not math.isfinite(norm)]
    if broken or not math.isfinite(report.loss):
        where = f"first in the gradient of {broken[0]!r}" if broken else "in the loss alone"
        advice = "try a smaller --optim.learning-rate"
        raise NonFiniteError(f"not finite at step {step}, {where} (loss {report.loss}): {advice}.")
