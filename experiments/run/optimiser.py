"""The optimiser of a run: AdamW with a schedule, learning rates of their own for exponents and encoders, an average."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from experiments.base.options import Interval, added
from experiments.layers.text_model import is_exponent, leaf_name


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW; the learning rate warms up linearly, then decays linearly to zero."""

    learning_rate: Annotated[float, Interval("(0, 1]")] = 3e-3
    """Peak learning rate."""
    p_multiplier: Annotated[float, Interval("[0, 1000]")] = 10.0
    """The exponent learns this many times faster than the other parameters; it is never decayed. 0 freezes it."""
    encoder_multiplier: Annotated[float, Interval("[0, 1000]"), added(1.0)] = 1.0
    """The encoder learns this many times faster than the other parameters: 0.01 for one that is pretrained."""
    weight_decay: Annotated[float, Interval("[0, 10]")] = 0.1
    """Decoupled weight decay of matrices, times the learning rate."""
    warmup: Annotated[float, Interval("[0, 1)")] = 0.1
    """Share of all steps in which the learning rate rises to its peak."""
    clip: Annotated[float, Interval("(0, 1e9]")] = 1.0
    """Gradient clipping: a gradient of a larger global norm is scaled down to this norm."""
    held_out: Annotated[float, Interval("[0, 0.5]"), added(0.0)] = 0.0
    """Share of the training texts that teach the exponent and nothing else; with 0 it learns from all, as the rest."""
    average: Annotated[float, Interval("[0, 1)")] = 0.0
    """Decay of an exponential moving average of the parameters, which is then validated and tested; 0 has none."""
    accumulate: Annotated[int, Interval("[1, 100000]")] = 1
    """Gradient accumulation: batches whose gradients are averaged for one update; a step is still one batch."""
    bad_steps: Annotated[int, Interval("[1, 1000000]")] = 10
    """A step whose loss, gradient or new parameters are not finite is skipped; so many in a row end the run."""


def schedule(options: OptimOptions, steps: int) -> optax.Schedule:
    """Return the step size: a linear rise, then a linear descent to zero."""
    rise = round(options.warmup * steps)
    return optax.schedules.join_schedules(
        [
            optax.schedules.linear_schedule(0, options.learning_rate, rise),
            optax.schedules.linear_schedule(options.learning_rate, 0, max(steps - rise, 1)),
        ],
        [rise],
    )


def optimizer(options: OptimOptions, parameters: Any, steps: int) -> optax.GradientTransformation:
    """Return AdamW; exponents learn `p_multiplier` times faster, and neither they nor vectors decay."""
    exponents = jax.tree_util.tree_map_with_path(lambda path, _: is_exponent(path), parameters)
    encoders = jax.tree_util.tree_map_with_path(lambda path, _: "encoder" in leaf_name(path).split("."), parameters)
    decayed = jax.tree.map(lambda leaf, exponent: leaf.ndim > 1 and not exponent, parameters, exponents)
    steps = max(steps // options.accumulate, 1)
    update = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(options.weight_decay, mask=decayed),
        optax.masked(optax.scale(options.p_multiplier), exponents),
        *([optax.masked(optax.scale(options.encoder_multiplier), encoders)] if options.encoder_multiplier != 1 else []),
        optax.scale_by_learning_rate(schedule(options, steps)),
    )
    if options.accumulate == 1:
        return update
    return optax.MultiSteps(update, options.accumulate).gradient_transformation()


def average(options: OptimOptions, parameters: Any, before: Any, step: jax.Array) -> Any:
    """Return the moving average of the parameters after a step, None where there is none.

    Young averages forget faster, at (1 + step) / (10 + step), so that the initial values do not stay in them.
    """
    if before is None:
        return None
    decay = jnp.minimum(options.average, (1 + step) / (10 + step))
    return optax.incremental_update(parameters, before, 1 - decay)
