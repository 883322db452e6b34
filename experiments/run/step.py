"""The two compiled functions of a run: one training step and one evaluation step."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.base import devices
from experiments.base.contracts import Batch, Task
from experiments.layers.text_model import leaf_name
from experiments.run import build
from experiments.run.clock import Clock
from experiments.run.config import Config
from experiments.run.diagnostics import Diagnostics, Evaluation, with_exponent_gradient


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
    """What a training step tells.

    Norms are those of the gradients, in the order of the parameters. A step whose loss, gradients or new parameters are
    not all finite is not `accepted`: the state is as before but for the number of the step.
    """

    loss: jax.Array
    tokens: jax.Array
    norms: list[jax.Array]
    accepted: jax.Array


class PerShape:
    """A jitted function that compiles once a shape of its batch, and knows how often; the clock knows how long.

    The batch is the last argument; the other arguments keep their shapes, and those in `first` are the same at every
    call: what is passed is no constant of the program, so runs that differ in the seed compile the same one.
    """

    def __init__(self, function: Callable, clock: Clock, *first: Any, **jit_options: Any):
        self._jitted = jax.jit(function, **jit_options)
        self.function, self.first = function, first
        self._programs: dict[tuple[int, ...], Any] = {}
        self._clock = clock

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._programs)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of the batch's shape."""
        arguments = self.first + arguments
        shape = arguments[-1].tokens.shape
        if shape not in self._programs:
            with self._clock.measure("compile"):
                self._programs[shape] = self._jitted.lower(*arguments).compile()
        return self._programs[shape](*arguments)


class Programs(NamedTuple):
    """The compiled functions, and the way from parameters back to a module."""

    train: PerShape
    evaluate: PerShape
    module: Callable[[nnx.State], Any]


def prepare(config: Config, task: Task, clock: Clock) -> tuple[State, Programs]:
    """Return the state of step 0 and the programs, whose compilation the clock measures."""
    model = build.model(config, len(task.vocabulary), len(task.labels))
    build.read_vectors(model, config, task.vocabulary)
    graph, *states = nnx.split(model, nnx.Param, ...)
    parameters, rest = states
    optimizer = build.optimizer(config.optim, parameters, config.epochs * task.steps_per_epoch)
    noise = devices.place(build.stream(config.seed, "dropout"))
    sharded = config.devices.sharded
    rest = devices.place(rest, sharded)

    def module(parameters: nnx.State, rest: nnx.State = rest) -> Any:
        return nnx.merge(graph, parameters, rest)

    def loss_of(parameters: nnx.State, rest: nnx.State, batch: Batch, key: jax.Array) -> jax.Array:
        logits, _ = module(*devices.laid((parameters, rest)))(batch.tokens, batch.mask, nnx.Rngs(dropout=key))
        return task.loss(logits, batch)

    def train(noise: jax.Array, rest: nnx.State, state: State, batch: Batch) -> tuple[State, StepReport]:
        key = jax.random.fold_in(noise, state.step)
        loss, gradients = jax.value_and_grad(loss_of)(state.parameters, rest, batch, key)
        norms = [jnp.sqrt(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradients)]
        updates, moments = optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = build.average(config.optim, parameters, state.average, state.step)
        proposed = State(parameters, moments, average, state.step)
        accepted = all_finite([loss, *norms, parameters])
        kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposed, state)
        report = StepReport(loss, batch.mask.sum(), norms, accepted)
        return devices.laid(kept._replace(step=state.step + 1), sharded), devices.laid(report)

    def evaluate(rest: nnx.State, parameters: nnx.State, batch: Batch) -> Evaluation:
        def summed(parameters: nnx.State) -> tuple[jax.Array, Any]:
            logits, shown = module(*devices.laid((parameters, rest)))(batch.tokens, batch.mask)
            return task.loss(logits, batch) * batch.weights.sum(), (task.metrics(logits, batch), shown)

        (metrics, shown), gradient = with_exponent_gradient(summed, parameters)
        return devices.laid(Evaluation(metrics, Diagnostics.of(shown, batch, gradient)))

    average = jax.tree.map(jnp.copy, parameters) if config.optim.average else None
    state = State(parameters, optimizer.init(parameters), average, jnp.zeros((), jnp.int32))
    return devices.place(state, sharded), Programs(
        PerShape(train, clock, noise, rest, donate_argnums=2), PerShape(evaluate, clock, rest), module
    )


def all_finite(tree: Any) -> jax.Array:
    """Return whether every number of a tree is finite."""
    return reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


def culprit(report: StepReport, parameters: nnx.State) -> str:
    """Return what was not finite in a step that was not accepted: the first gradient, or the loss, or the result."""
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]
    broken = [name for name, norm in zip(names, report.norms, strict=True) if not math.isfinite(norm)]
    if broken:
        return f"the gradient of {broken[0]!r}"
    return "the new parameters" if math.isfinite(report.loss) else "the loss"
