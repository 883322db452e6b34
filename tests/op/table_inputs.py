"""Input families of the exact table: what goes into the op. The values come from `make_table.py`."""

from typing import NamedTuple

import numpy as np

SEED = 20201107

_SIZES = (1e-12, 1e-6, 1e-3, 1e-2, 0.1, 0.5, 1, 2, 3, 10, 100, 1e3, 1e4, np.inf)
EXPONENTS = (0.0, *(sign * size for size in _SIZES for sign in (1, -1)))
LONG_EXPONENTS = (0.0, 1e-6, 0.01, 0.5, 1.0, 2.0, 10.0, -1.0, 1e4)
_FIXED_ABOVE = (1e-12, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 10.0, 100.0, 1e4, np.inf)
FIXED_EXPONENTS = (0.0, *_FIXED_ABOVE, -1e-6, -0.01, -0.5, -1.0, -3.0, -np.inf)
_SINGLE_PASS = (1.0, 1.0001, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)
LOG_EXPONENTS = (*_SINGLE_PASS, 0.0, 1e-12, -1e-6, 1e-3, 0.1, 0.5, -1.0, -3.0, 100.0, np.inf)
LOW_EXPONENTS = (0.0, 1e-6, -1e-3, 0.1, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, 7.5, 10.0, 100.0, 1e4, np.inf, -np.inf)

SPREADS = (1.0, 3.0, 0.3, 0.0)  # standard deviation of the logits, one a row; 0 makes equal logits


class Inputs(NamedTuple):
    """One row: states (linear or log), scores, mask, each of length n."""

    states: np.ndarray
    scores: np.ndarray
    mask: np.ndarray


def _gamma(rng, n):
    return np.abs(rng.standard_normal(n)) + 0.05


def _row(states, scores, mask=None) -> Inputs:
    mask = np.ones(len(states), bool) if mask is None else mask
    return Inputs(np.float32(states), np.float32(scores), mask)


def _masked(rng, n, scores):
    mask = rng.random(n) < 0.6
    mask[:2] = True, False
    padding = rng.choice([np.nan, np.inf, -np.inf, -1.0], n)
    return _row(np.where(mask, _gamma(rng, n), padding), np.where(mask, scores, padding[::-1]), mask)


def _single(rng, n, scores):
    mask = np.arange(n) == rng.integers(n)
    return _row(np.where(mask, _gamma(rng, n), np.nan), scores, mask)


def _zeros(rng, n, scores):
    states = np.where(rng.random(n) < 0.3, 0.0, _gamma(rng, n))
    states[:2] = 0.0, 1.25
    return _row(states, scores)


def _outlier(rng, n, scores, size=1e20):
    states = _gamma(rng, n)
    states[rng.integers(n)] = size
    return _row(states, scores)


def _subnormal(rng, n, scores):
    tiny = rng.choice([1e-40, 3e-39, 1e-44], n)
    return _row(np.where(rng.random(n) < 0.4, tiny, _gamma(rng, n) * rng.choice([1.0, 1e-35], n)), scores)


FAMILIES = {
    "normal": lambda rng, n, z: _row(_gamma(rng, n), z),
    "masked": _masked,
    "decades60": lambda rng, n, z: _row(10.0 ** rng.uniform(-30, 30, n), z),
    "noise1e-4": lambda rng, n, z: _row(1 + 1e-4 * rng.standard_normal(n), z),
    "equal": lambda rng, n, z: _row(np.full(n, _gamma(rng, 1)[0]), z),
    "zeros": _zeros,
    "single": _single,
    "spread1e4": lambda rng, n, z: _row(_gamma(rng, n), rng.uniform(-5e3, 5e3, n)),
    "scale1e-30": lambda rng, n, z: _row(_gamma(rng, n) * 1e-30, z),
    "scale1e30": lambda rng, n, z: _row(_gamma(rng, n) * 1e30, z),
    "outlier1e20": _outlier,
    "all_zero": lambda rng, n, z: _row(np.zeros(n), z),
    "all_masked": lambda rng, n, z: _row(np.full(n, np.nan), z, np.zeros(n, bool)),
    "subnormal": _subnormal,
}


def _pick(*names):
    return {name: FAMILIES[name] for name in names}


def _ends(rng, n, scores):
    return _row(rng.choice([-1.0, 1.0], n), scores)


def _log_masked(rng, n, scores):
    mask = rng.random(n) < 0.6
    mask[:2] = True, False
    padding = rng.choice([np.nan, np.inf, -np.inf, 1e9], n)
    return _row(np.where(mask, rng.uniform(-1, 1, n), padding), np.where(mask, scores, padding[::-1]), mask)


LOG_FAMILIES = {  # log states in [-1, 1]: the bounded single-pass form must take every one of them
    "uniform": lambda rng, n, z: _row(rng.uniform(-1, 1, n), z),
    "ends": _ends,
    "tanh": lambda rng, n, z: _row(np.tanh(2 * rng.standard_normal(n)), z),
    "noise1e-4": lambda rng, n, z: _row(1e-4 * rng.standard_normal(n), z),
    "equal": lambda rng, n, z: _row(np.full(n, rng.uniform(-1, 1)), z),
    "masked": _log_masked,
    "all_masked": lambda rng, n, z: _row(np.full(n, np.nan), z, np.zeros(n, bool)),
}


def _unbounded_zeros(rng, n, scores):
    states = np.where(rng.random(n) < 0.3, -np.inf, rng.standard_normal(n))
    states[:2] = -np.inf, 0.25
    return _row(states, scores)


FREE_LOG_FAMILIES = {  # log states without a promise
    "normal": lambda rng, n, z: _row(rng.standard_normal(n), z),
    "decades60": lambda rng, n, z: _row(rng.uniform(-69, 69, n), z),
    "zeros": _unbounded_zeros,
    "all_zero": lambda rng, n, z: _row(np.full(n, -np.inf), z),
}


def _coarse(values):
    """Round to 8 significant bits, the precision of bfloat16, which float16 holds too."""
    mantissa, exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))
    return np.where(np.isfinite(values), np.ldexp(np.round(mantissa * 256) / 256, exponent), values)


def _lowered(family):
    def make(rng, n, scores):
        row = family(rng, n, scores)
        return _row(_coarse(row.states), _coarse(row.scores), row.mask)

    return make


LOW_FAMILIES = {  # exactly representable in bfloat16 and float16
    name: _lowered(family)
    for name, family in {
        **_pick("normal", "masked", "equal", "zeros", "single", "spread1e4", "all_zero", "all_masked"),
        "noise1e-2": lambda rng, n, z: _row(1 + 1e-2 * rng.standard_normal(n), z),
        "scale1e-2": lambda rng, n, z: _row(_gamma(rng, n) * 1e-2, z),
        "scale1e3": lambda rng, n, z: _row(_gamma(rng, n) * 1e3, z),
        "outlier3e4": lambda rng, n, z: _outlier(rng, n, z, 3e4),
    }.items()
}


class Group(NamedTuple):
    """Families sharing a shape; every family is evaluated at every exponent."""

    families: dict
    exponents: tuple
    n: int = 16
    rows: int = 4
    sharpen: bool = True
    log_states: bool = False


GROUPS = {
    "linear": Group(FAMILIES, EXPONENTS),
    "long": Group(_pick("normal", "decades60"), LONG_EXPONENTS, n=512, rows=1),
    "fixed": Group(
        _pick("normal", "masked", "decades60", "noise1e-4", "equal", "zeros", "single", "all_zero"),
        FIXED_EXPONENTS,
        rows=2,
        sharpen=False,
    ),
    "log": Group(LOG_FAMILIES, LOG_EXPONENTS, rows=3, log_states=True),
    "free_log": Group(FREE_LOG_FAMILIES, EXPONENTS, rows=2, log_states=True),
    "low": Group(LOW_FAMILIES, LOW_EXPONENTS, rows=2),
}  # fmt: skip


def inputs_of(name: str) -> list[list[Inputs]]:
    """[family][row] inputs of a group, from seeds."""
    group = GROUPS[name]
    index = list(GROUPS).index(name)
    grid = []
    for f, family in enumerate(group.families.values()):
        rngs = [np.random.default_rng([SEED, index, f, row]) for row in range(group.rows)]
        grid.append([family(rng, group.n, SPREADS[i] * rng.standard_normal(group.n)) for i, rng in enumerate(rngs)])
    return grid
