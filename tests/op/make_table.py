"""Exact values and derivatives of the op, by mpmath: writes and checks `table.npz`.

    python -m tests.op.make_table            # write the table
    python -m tests.op.make_table --check    # recompute everything and compare with the stored table

The op is L = log r = (lse(c z + p u) - lse(c z)) / p with u = log h, c = p (sharpen) or 1 (sharpen=False), over
unmasked positions. With w = softmax(c z + p u), v = softmax(c z), b = c (w - v) / p:

    dr/dz = r b,   dr/du = r w,   dr/dh = r w / h,   dr/dp = r dL/dp.

Every input is taken at its exact float32 value, p included. Conventions are those of the numerics contract: a zero
with p <= 0, no positive state, or a fully masked row give 0 everywhere; dr/dh at h = 0 is 0 for p != 1 (`convention`
marks the entries where that is a choice: p < 1, or all states zero); ties at p = +-inf are shared. A subnormal
float32 state counts as an exact zero, because XLA on CPU flushes it; `states` keeps the subnormal, the references
treat it as 0.

`inherent_*` is how far each exact output moves, to first order, when every input moves by half a float32 ulp in its
worst direction: the error no float32 code can be blamed for. float64 code gets that times 2^-29.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import mpmath
import numpy as np
from mpmath import mp, mpf

from tests.op.table_inputs import GROUPS, Inputs, inputs_of

DIGITS = 70
LIMIT_P = mpf(10) ** -20  # p = 0 is a smooth point: the limit is the value here to 20 digits, and 70 digits bear 1/p^2
TINY = float(np.finfo(np.float32).tiny)
PATH = Path(__file__).with_name("table.npz")


class Exact(NamedTuple):
    """Exact first and second derivatives of L on the unmasked positions; w, b, ... are lists of mpf."""

    value: mpf  # L
    w: list
    v: list
    b: list  # dL/dz
    slope: mpf  # dL/dp
    slope_u: list  # d2L/dp du
    slope_z: list  # d2L/dp dz
    slope_p: mpf  # d2L/dp2
    dv_p: list


def _softmax(logits):
    top = max(logits)
    powers = [mp.exp(x - top) if mpmath.isfinite(x) else mpf(0) for x in logits]
    total = mp.fsum(powers)
    return [x / total for x in powers], top + mp.log(total)


def _mean(weights, values):
    return mp.fsum(a * x for a, x in zip(weights, values, strict=True) if a)


def exact_finite(u, z, p, sharpen) -> Exact:
    """L and its derivatives at finite p != 0. u may hold -inf where p > 0."""
    c = p if sharpen else mpf(1)
    v, norm_v = _softmax([c * x for x in z])
    w, norm_w = _softmax([c * a + p * x for a, x in zip(z, u, strict=True)])
    s = [a + x for a, x in zip(z, u, strict=True)] if sharpen else u
    mean_s, mean_z = _mean(w, s), _mean(v, z)
    dw = [a * (x - mean_s) if a else mpf(0) for a, x in zip(w, s, strict=True)]
    dv = [a * (x - mean_z) if sharpen else mpf(0) for a, x in zip(v, z, strict=True)]
    gap = norm_w - norm_v
    gap_p = mean_s - (mean_z if sharpen else 0)
    gap_pp = _mean(dw, s) - _mean(dv, z)
    x = [a - e for a, e in zip(w, v, strict=True)]
    return Exact(
        value=gap / p,
        w=w,
        v=v,
        b=[c / p * a for a in x],
        slope=(gap_p - gap / p) / p,
        slope_u=dw,
        slope_z=[a - e if sharpen else (a - y / p) / p for a, e, y in zip(dw, dv, x, strict=True)],
        slope_p=(gap_pp - 2 * (gap_p - gap / p) / p) / p,
        dv_p=dv,
    )


def _extremal(values, weights, sign):
    """Weights restricted to the positions where sign * values is largest, normalised: ties are shared."""
    finite = [sign * x for x in values if mpmath.isfinite(x)]
    chosen = [a if sign * x == max(finite) else mpf(0) for a, x in zip(weights, values, strict=True)]
    total = mp.fsum(chosen)
    return [a / total for a in chosen]


def exact_infinite(u, z, sign, sharpen) -> Exact:
    """The limits p -> +-inf: r = max(a h) / max(a), or min / min; max h or min h with sharpen=False."""
    zero = [mpf(0)] * len(u)
    y = [a + x for a, x in zip(z, u, strict=True)] if sharpen else u
    _require_clear_winner(y, sign)
    v = _extremal(z, [mpf(1)] * len(u), sign) if sharpen else _softmax(z)[0]
    w = _extremal(y, [mpf(1)] * len(u) if sharpen else v, sign)
    b = [a - e for a, e in zip(w, v, strict=True)] if sharpen else zero
    value = sign * max(sign * x for x in y if mpmath.isfinite(x)) - (sign * max(sign * x for x in z) if sharpen else 0)
    return Exact(value, w, v, b, mpf(0), zero, zero, mpf(0), zero)


def _require_clear_winner(y, sign):
    """A winner that float32 cannot tell from the second is no test of the op."""
    finite = sorted({sign * x for x in y if mpmath.isfinite(x)}, reverse=True)
    size = max(abs(x) for x in finite)
    assert len(finite) == 1 or finite[0] - finite[1] > 2.0**-20 * max(1.0, float(size)), "near tie: change the seed"


def exact(u, z, p, sharpen=True) -> Exact:
    """L and derivatives for any p for which the row is not one of the all-zero conventions."""
    if mpmath.isinf(p):
        return exact_infinite(u, z, 1 if p > 0 else -1, sharpen)
    answer = exact_finite(u, z, LIMIT_P if p == 0 else mpf(p), sharpen)
    return answer._replace(b=[mpf(0)] * len(u)) if p == 0 and sharpen else answer


def _half_ulp(values):
    finite = np.isfinite(values)
    return np.where(finite, np.spacing(np.abs(np.where(finite, values, 0)).astype(np.float32)), 0.0) / 2.0


def _floats(values):
    return np.array([float(x) for x in values])


def inherent(e: Exact, h, delta_u, delta_z, delta_p, p, sharpen):
    """Worst first-order movement of (r, dp, dz, dstates); h is None for log states."""
    r, slope, slope_p = float(mp.exp(e.value)), float(e.slope), float(e.slope_p)
    w, v, b, slope_u, slope_z, dv_p = map(_floats, (e.w, e.v, e.b, e.slope_u, e.slope_z, e.dv_p))
    p = 0.0 if np.isinf(p) else p  # the curvature terms vanish there
    c = p if sharpen else 1.0
    spread_w = np.diag(w) - np.outer(w, w)
    curve_z = c * (np.diag(b) - np.outer(b, w) - np.outer(v, b))

    def moved(by_u, by_z, by_p):
        return np.abs(by_u) @ delta_u + np.abs(by_z) @ delta_z + np.abs(by_p) * delta_p

    out_r = r * moved(w, b, slope)
    out_p = r * moved(slope * w + slope_u, slope * b + slope_z, slope**2 + slope_p)
    out_z = r * moved(np.outer(b, w) + c * spread_w, np.outer(b, b) + curve_z, b * slope + slope_z)
    own = 0.0 if h is None else np.diag(w)
    out_u = r * moved(np.outer(w, w) + p * spread_w - own, np.outer(w, b) + c * spread_w, w * slope + slope_u)
    if h is not None:
        at_zero = moved(np.zeros_like(spread_w), c * (np.diag(v) - np.outer(v, v)), dv_p) * (p == 1)
        out_u = np.where(h > 0, out_u / np.where(h > 0, h, 1.0), at_zero)
    return out_r, out_p, out_z, out_u


def _state_gradient(e: Exact, h, p):
    r = mp.exp(e.value)
    if h is None:
        return [r * w for w in e.w]
    return [r * w / mpf(x) if x > 0 else (v if p == 1 else mpf(0)) for w, v, x in zip(e.w, e.v, h, strict=True)]


def flushed(states):
    """The states as XLA on CPU sees them: a subnormal is a zero."""
    return np.where(np.abs(states) < TINY, np.float32(0), states)


OUTPUTS = ("r", "dp", "dz", "dstates")


def solve(row: Inputs, p: np.float32, sharpen=True, log_states=False) -> dict:
    """Everything the table holds about one row at one exponent."""
    n, p = len(row.states), float(p)
    full = {k: np.zeros(n if k in ("dz", "dstates") else ()) for k in OUTPUTS}
    full |= {f"inherent_{k}": np.zeros_like(full[k]) for k in OUTPUTS}
    keep = np.flatnonzero(row.mask)
    states = row.states[keep].astype(np.float64) if log_states else flushed(row.states)[keep].astype(np.float64)
    is_zero = states == (-np.inf if log_states else 0.0)
    convention = np.zeros(n, bool)
    convention[keep] = is_zero & (not log_states) & ((p < 1) | is_zero.all())
    full |= {"convention": convention, "log_ratio": np.zeros(())}
    if len(keep) == 0 or is_zero.all() or (p <= 0 and is_zero.any()):
        return full
    h = None if log_states else states
    u = [mpf(x) for x in states] if log_states else [mp.log(mpf(x)) if x > 0 else -mp.inf for x in states]
    z = [mpf(float(x)) for x in row.scores[keep]]
    e = exact(u, z, p, sharpen)
    safe = np.where(is_zero, 1.0, states)
    delta_u = np.where(is_zero, 0.0, _half_ulp(safe) / (1.0 if log_states else safe))
    delta_p = 0.0 if np.isinf(p) else float(_half_ulp(np.float32(p)))
    moves = inherent(e, h, delta_u, _half_ulp(row.scores[keep]), delta_p, p, sharpen)
    r = mp.exp(e.value)
    values = (float(r), float(r * e.slope), _floats([r * x for x in e.b]), _floats(_state_gradient(e, h, p)))
    for name, value, move in zip(OUTPUTS, values, moves, strict=True):
        at = keep if np.ndim(value) else ()
        full[name][at], full[f"inherent_{name}"][at] = value, move
    u_ref = (max if p >= 0 else min)(x for x in u if mpmath.isfinite(x))
    full["log_ratio"] = np.asarray(float(abs(e.value - u_ref)))
    return full


def _round_up(values, bits=4):
    """A few bits suffice for an error estimate, and compress."""
    mantissa, exponent = np.frexp(values)
    rounded = np.ldexp(np.ceil(mantissa * 2**bits) / 2**bits, exponent)
    return np.minimum(rounded, np.finfo(np.float32).max).astype(np.float32)


def build(name: str) -> dict[str, np.ndarray]:
    """The arrays of one group: inputs [F R n], exponents [P], scalars [F R P], vectors [F R P n]."""
    group = GROUPS[name]
    grid = inputs_of(name)
    p = np.array(group.exponents, np.float32)
    with mp.workdps(DIGITS):
        solved = [[[solve(row, x, group.sharpen, group.log_states) for x in p] for row in rows] for rows in grid]
    arrays = {k: np.array([[[case[k] for case in row] for row in rows] for rows in solved]) for k in solved[0][0][0]}
    arrays |= {k: _round_up(v) for k, v in arrays.items() if k.startswith("inherent_")}
    arrays["log_ratio"] = arrays["log_ratio"].astype(np.float32)
    arrays |= {k: np.array([[getattr(row, k) for row in rows] for rows in grid]) for k in Inputs._fields}
    return arrays | {"p": p, "families": np.array(list(group.families))}


def compare(built: dict, stored: dict) -> None:
    """Inputs equal; references equal to 1e-14 (libm may differ in the last bit); estimates to 15 %."""
    assert built.keys() == stored.keys()
    for key, value in built.items():
        if key.startswith("inherent_"):
            np.testing.assert_allclose(stored[key], value, rtol=0.15, err_msg=key)
        elif key in OUTPUTS or key == "log_ratio":
            np.testing.assert_allclose(stored[key], value, rtol=1e-6 if key == "log_ratio" else 1e-14, err_msg=key)
        else:
            np.testing.assert_array_equal(stored[key], value, err_msg=key)


def read(name: str) -> dict[str, np.ndarray]:
    """One group of the stored table."""
    with np.load(PATH, allow_pickle=False) as table:
        return {key.split("/")[1]: table[key] for key in table.files if key.startswith(f"{name}/")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="recompute and compare with the stored table")
    built = {name: build(name) for name in GROUPS}
    if parser.parse_args().check:
        for name, arrays in built.items():
            compare(arrays, read(name))
        print(f"{PATH.name} reproduced")
    else:
        np.savez_compressed(PATH, **{f"{name}/{k}": v for name, arrays in built.items() for k, v in arrays.items()})
        print(f"{PATH.name}: {PATH.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
