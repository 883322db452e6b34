"""The two compiled functions of a run: one training step and one evaluation step."""

import math
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.base import devices
from experiments.base.contracts import Batch, Last, Mean, Objective
from experiments.layers.text_model import exponents, leaf_name
from experiments.run.clock import Clock
from experiments.run.diagnostics import Diagnostics, Evaluation, with_exponent_gradient
from experiments.run.optimiser import OptimOptions, average


class State(NamedTuple):
    """All that a training step changes."""

    parameters: nnx.State
    statistics: nnx.State
    """What the objective itself changes when it is called in training (`nnx.BatchStat`); it has no gradient."""
    optimizer: optax.OptState
    average: nnx.State | None
    """Moving average of the parameters, where one is asked for."""
    step: jax.Array

    @property
    def tested(self) -> nnx.State:
        """What is validated and tested: the parameters, or their average where there is one, and the statistics."""
        return nnx.merge_state(self.parameters if self.average is None else self.average, self.statistics)


class Recipe(NamedTuple):
    """What is fixed for all steps of a run and is part of the compiled programs."""

    graph: Any
    """The form of the objective, which with its parameters makes it again."""
    optimizer: optax.GradientTransformation
    options: OptimOptions
    sharded: bool
    """Whether large arrays of the state are cut over the devices."""

    def objective(self, *numbers: nnx.State, training: bool = False) -> Objective:
        """Return the objective of given parameters, statistics and the rest of its arrays, in any number of states.

        In training it changes its statistics when it is called, as flax's `Module.train` says to its layers.
        """
        # A copy, because only what is made within a trace can be changed in it; no array is copied.
        objective = nnx.merge(self.graph, *devices.constrain(numbers), copy=True)
        if training:
            objective.train()
        return objective


class StepBatch(NamedTuple):
    """The batch of a step, and for each of its rows what it is for."""

    examples: Batch
    requests: jax.Array | np.ndarray
    """The request [B] of the process that gives the row; see `Saver.request`."""
    held_out: jax.Array | np.ndarray | None = None
    """1 at rows from which only the exponent learns [B]; None where there are none."""


class StepReport(NamedTuple):
    """What a training step reports.

    Norms are those of the gradients, in the order of the parameters. A step whose loss, gradients or new parameters are
    not all finite is not `accepted`: the state is as before but for the number of the step.
    """

    loss: jax.Array
    scalars: Mapping[str, Mean | Last]
    """The loss terms, where there are several, and the scalars of the objective."""
    norms: list[jax.Array]
    accepted: jax.Array
    request: jax.Array
    """The largest of the numbers that the processes passed with the batch: so they agree on when to save."""


def total_loss(objective: Objective, terms: Mapping[str, Mean]) -> jax.Array:
    """Return the sum of the means of the terms, each times its weight."""
    weights = objective.term_weights
    means = (term.value * weights[name] if name in weights else term.value for name, term in terms.items())
    return reduce(jnp.add, means)


def train_step(
    recipe: Recipe, noise: jax.Array, frozen: nnx.State, state: State, batch: StepBatch
) -> tuple[State, StepReport]:
    """Return the state after one update and what to report.

    Args:
        recipe: what is fixed.
        noise: random key of the run; that of the step is folded from it.
        frozen: all of the objective that no step changes.
        state: the state before.
        batch: the batch, and what accompanies its rows.
    """
    examples, held_out = batch.examples, batch.held_out
    key = jax.random.fold_in(noise, state.step)

    def loss_of(parameters: nnx.State, weights: jax.Array) -> tuple[jax.Array, tuple[Any, nnx.State]]:
        objective = recipe.objective(parameters, state.statistics, frozen, training=True)
        counted = examples._replace(weights=weights)
        outputs = objective(counted, nnx.Rngs(dropout=key))
        terms = objective.terms(outputs, counted)
        logged = {**(terms if len(terms) > 1 else {}), **objective.scalars(outputs, counted)}
        return total_loss(objective, terms), (logged, nnx.state(objective, nnx.BatchStat))

    gradients_of = jax.value_and_grad(loss_of, has_aux=True)
    learned = examples.weights if held_out is None else examples.weights * (1 - held_out)
    (loss, (scalars, statistics)), gradients = gradients_of(state.parameters, learned)
    if held_out is not None:  # of the second gradient only the exponents are used: the way back ends at the pooler
        _, others = gradients_of(state.parameters, examples.weights * held_out)
        gradients = with_exponents(gradients, others)
    norms = [jnp.sqrt(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(gradients)]
    updates, moments = recipe.optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    moved = average(recipe.options, parameters, state.average, state.step)
    proposed = State(parameters, statistics, moments, moved, state.step)
    accepted = all_finite([loss, *norms, parameters, statistics])
    kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposed, state)
    report = StepReport(loss, scalars, norms, accepted, batch.requests.max())
    return devices.constrain(kept._replace(step=state.step + 1), recipe.sharded), devices.constrain(report)


def evaluation_step(recipe: Recipe, frozen: nnx.State, parameters: nnx.State, batch: Batch) -> Evaluation:
    """Return loss terms, metrics, scalars and diagnostics of a batch, without noise; parameters with statistics."""

    def loss_of(parameters: nnx.State) -> tuple[jax.Array, Any]:
        objective = recipe.objective(parameters, frozen)
        outputs = objective(batch)
        terms = objective.terms(outputs, batch)
        found = terms, objective.metrics(outputs, batch), objective.scalars(outputs, batch), outputs, objective.p
        return total_loss(objective, terms) * batch.weights.sum(), found

    (terms, metrics, scalars, outputs, p), gradient = with_exponent_gradient(loss_of, parameters)
    diagnostics = Diagnostics.of(outputs, batch.weights, gradient)
    return devices.constrain(Evaluation(terms, metrics, scalars, diagnostics, p))


class PerShape:
    """A jitted function that compiles once for every shape of its batch and counts its programs; a clock times that.

    The batch is the last argument; the other arguments keep their shapes, and those in `first` are the same at every
    call: what is passed is no constant of the program, so runs that differ in the seed compile the same one.
    """

    def __init__(self, function: Callable, clock: Clock, *first: Any, **jit_options: Any):
        self._jitted = jax.jit(function, **jit_options)
        self._first = first
        self._programs: dict[Any, Any] = {}
        self._clock = clock

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._programs)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of the batch's shape."""
        arguments = self._first + arguments
        leaves, structure = jax.tree.flatten(arguments[-1])
        key = structure, tuple(leaf.shape for leaf in leaves)
        if key not in self._programs:
            with self._clock.measure("compile"):
                self._programs[key] = self._jitted.lower(*arguments).compile()
        return self._programs[key](*arguments)


class Programs(NamedTuple):
    """The compiled functions, and the way from parameters back to an objective."""

    train: PerShape
    evaluate: PerShape
    objective: Callable[[nnx.State], Any]

    @classmethod
    def of(cls, recipe: Recipe, noise: jax.Array, frozen: nnx.State, clock: Clock) -> "Programs":
        """Return the programs of a run, whose compilation the clock measures."""
        return cls(
            PerShape(partial(train_step, recipe), clock, noise, frozen, donate_argnums=2),
            PerShape(partial(evaluation_step, recipe), clock, frozen),
            lambda parameters: nnx.merge(recipe.graph, parameters, frozen),
        )


def with_exponents(gradients: nnx.State, others: nnx.State) -> nnx.State:
    """Return gradients with those of the exponents taken from others."""
    leaves, structure = jax.tree.flatten(gradients)
    chosen = zip(exponents(gradients), leaves, jax.tree.leaves(others), strict=True)
    return jax.tree.unflatten(structure, [other if exponent else own for exponent, own, other in chosen])


def all_finite(tree: Any) -> jax.Array:
    """Return whether every number of a tree is finite."""
    return reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


def leaf_names(parameters: nnx.State) -> list[str]:
    """Return the dotted names of the parameters, in the order of the gradients that a step reports."""
    return [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters)]


def culprit(report: StepReport, names: list[str]) -> str:
    """Return what was not finite in a step that was not accepted: the first gradient, or the loss, or the result."""
    broken = [name for name, norm in zip(names, report.norms, strict=True) if not math.isfinite(norm)]
    if broken:
        return f"the gradient of {broken[0]!r}"
    return "the new parameters" if math.isfinite(report.loss) else "the loss"
