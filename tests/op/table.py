"""The exact table as the tests use it: run a group through the op in one of three layouts, and measure the errors."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from tests.op.make_table import GROUPS, OUTPUTS, TINY, flushed, read
from tests.op.running import jitted, jitted_rows, on_host, random_cotangent
from tests.op.tolerances import U32, unit


class Errors(NamedTuple):
    """One output of one family: arrays ending in the axis of exponents, or without it where exponents were summed."""

    family: str
    output: str
    got: np.ndarray
    want: np.ndarray
    noise: np.ndarray  # what float32 inputs and one rounding excuse: the denominator of E
    relevant: np.ndarray  # False at conventions and where the exact number is outside the dtype
    unit: float  # half an ulp of 1 in the arithmetic inside the op
    log_ratio: np.ndarray  # |log(r / h_ref)|, shape [rows, exponents]
    excused: np.ndarray | float  # log states: what half an ulp of log h, 69 at most, does to the value
    exponents: np.ndarray

    def scaled(self):
        """E of the contract; nan where the op returned nan."""
        error = np.abs(self.got - self.want) / np.where(self.noise > 0, self.noise, 1.0)
        return np.where(self.relevant, error, 0.0)


@functools.cache
def load(group: str) -> dict:
    """The stored arrays of a group and what kind of states it has."""
    return read(group) | {"log_states": GROUPS[group].log_states}


def inputs(group: str, dtype):
    """States, scores and p: float64 code gets the zeros that float32 code sees in place of subnormals."""
    table = load(group)
    states = table["states"]
    if dtype == np.float64 and not GROUPS[group].log_states:
        states = flushed(states)
    wide = jnp.float64 if dtype == np.float64 else jnp.float32  # p is never in low precision
    return jnp.asarray(states, dtype), jnp.asarray(table["scores"], dtype), jnp.asarray(table["p"], wide)


def options_of(group: str, log_bound=None) -> dict:
    """The static options of `pool` for a group."""
    return {"sharpen": GROUPS[group].sharpen, "log_states": GROUPS[group].log_states, "log_bound": log_bound}


def run_rows(group: str, implementation, dtype, log_bound=None):
    """Every case alone: vmap over states, scores, mask, p and cotangent."""
    table = load(group)
    states, scores, exponents = inputs(group, dtype)
    shape = table["r"].shape
    grid = lambda x: jnp.broadcast_to(x[:, :, None], (*shape, *x.shape[2:])).reshape(-1, *x.shape[2:])  # noqa: E731
    p = jnp.broadcast_to(exponents, shape).reshape(-1)
    g = random_cotangent(shape, dtype)
    run = jitted_rows(implementation=implementation, **options_of(group, log_bound))
    got = on_host(run(grid(states), grid(scores), p, grid(jnp.asarray(table["mask"])), g.reshape(-1)))
    value, dstates, dz, dp = (x.reshape(*shape, *x.shape[1:]) for x in got)
    g = on_host(g)
    for f, family in enumerate(table["families"]):
        outputs = {"r": value[f], "dp": dp[f], "dz": dz[f], "dstates": dstates[f]}
        yield from (_errors(table, f, str(family), k, outputs[k], g[f], dtype) for k in OUTPUTS)


def run_scalar(group: str, implementation, dtype, log_bound=None):
    """One exponent for a whole batch, as a layer has it; dp arrives summed over the rows."""
    table = load(group)
    states, scores, exponents = inputs(group, dtype)
    run = jitted(implementation=implementation, **options_of(group, log_bound))
    for f, family in enumerate(table["families"]):
        g = random_cotangent(table["r"].shape[1:], dtype, seed=f)
        columns = [
            on_host(run(states[f][..., None], scores[f], p, jnp.asarray(table["mask"][f]), g[:, i : i + 1]))
            for i, p in enumerate(exponents)
        ]
        value, dstates, dz, dp = (np.stack(x) for x in zip(*columns, strict=True))
        outputs = {
            "r": value[..., 0].T,
            "dp": dp,
            "dz": np.moveaxis(dz, 0, 1),
            "dstates": np.moveaxis(dstates[..., 0], 0, 1),
        }
        yield from (
            _errors(table, f, str(family), k, outputs[k], on_host(g), dtype, sum_rows=k == "dp") for k in OUTPUTS
        )


def run_features(group: str, implementation, dtype, log_bound=None):
    """One exponent a feature; dz arrives summed over the features, dp over the rows."""
    table = load(group)
    states, scores, exponents = inputs(group, dtype)
    run = jitted(implementation=implementation, **options_of(group, log_bound))
    for f, family in enumerate(table["families"]):
        g = random_cotangent(table["r"].shape[1:], dtype, seed=f)
        wide = jnp.broadcast_to(states[f][..., None], (*states[f].shape, exponents.size))
        value, dstates, dz, dp = on_host(run(wide, scores[f], exponents, jnp.asarray(table["mask"][f]), g))
        outputs = {"r": value, "dp": dp, "dz": dz, "dstates": np.moveaxis(dstates, -1, 1)}
        yield from (
            _errors(table, f, str(family), k, outputs[k], on_host(g), dtype, sum_rows=k == "dp", sum_p=k == "dz")
            for k in OUTPUTS
        )


LAYOUTS = {"rows": run_rows, "scalar": run_scalar, "features": run_features}


def _errors(table, f, family, output, got, g, dtype, sum_rows=False, sum_p=False) -> Errors:
    """Reference times cotangent, and the denominator of E, reduced the way the layout reduces."""
    want, inherent = table[output][f], table[f"inherent_{output}"][f].astype(np.float64)
    g = np.ones_like(g) if output == "r" else g
    g, r = (x[..., None] if want.ndim == 3 else x for x in (g, table["r"][f]))
    small = unit(dtype) if dtype == np.float64 else U32
    floor = 0.0 if output == "dstates" and not table["log_states"] else small * np.abs(r)
    noise = np.abs(g) * (small * np.abs(want) + inherent * (small / U32) + floor) + TINY  # one result may be flushed
    want = g * want
    relevant = np.abs(want) < float(jnp.finfo(dtype).max) / 4
    if output == "dstates":
        relevant = relevant & ~table["convention"][f]
    for axis, wanted in ((1, sum_p), (0, sum_rows)):
        if wanted:
            want, noise, relevant = want.sum(axis), noise.sum(axis), relevant.all(axis)
    if want.ndim == 3:  # [rows, exponents, n]
        got, want, noise, relevant = (np.moveaxis(x, 1, -1) for x in (got, want, noise, relevant))
    excused = inherent * (small / U32) if table["log_states"] else 0.0
    return Errors(family, output, got, want, noise, relevant, small, table["log_ratio"][f], excused, table["p"])
