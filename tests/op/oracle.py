"""A second, separately written oracle: value and gradients of many rows at once, by numpy in extended floats.

Rows are [N T]; u = log h (a zero is -inf), z scores, p [N]; ``keep`` says which tokens are real. The arithmetic is
``np.longdouble`` (64 bits of mantissa on x86, exponents to 10^4932), so that no range of the tests overflows it. The
table of mpmath (`make_table`) checks it in `test_search.py`.

    L = log r = [lse(c z + p u) - lse(c z)]/p,  c = p or 1        dL/du = w   dL/dz = b = c (w - v)/p   dL/dp = slope
"""

from math import factorial
from typing import NamedTuple

import numpy as np

WIDE = np.longdouble
INFINITE = WIDE(1e30)  # stands for an infinite exponent


class Solution(NamedTuple):
    """L [N 1], w and b and v [N T], the slope [N 1], where r = 0 by rule [N 1], and |log(r/h_ref)| [N 1]."""

    log_r: np.ndarray
    w: np.ndarray
    b: np.ndarray
    v: np.ndarray
    slope: np.ndarray
    dead: np.ndarray
    log_ratio: np.ndarray

    @property
    def r(self):
        return np.where(self.dead, 0, np.exp(self.log_r))


def _psi(s):
    """(s e^s - e^s + 1)/s^2 for |s| <= 1/2."""
    total = np.zeros_like(s)
    for k in reversed(range(24)):
        total = total * s + WIDE(k + 1) / WIDE(factorial(k + 2))
    return total


def _log_sum(x, keep):
    """log of the sum of e^x over the kept tokens [N 1], 0 where there is none, for x <= 0 with a 0 among them."""
    total = np.sum(np.where(keep, np.exp(np.where(keep, x, 0)), 0), axis=1, keepdims=True)
    return np.log(np.where(total > 0, total, 1))


def _largest(x, keep, sign):
    found = sign * np.max(np.where(keep, sign * x, -np.inf), axis=1, keepdims=True)
    return np.where(np.isfinite(found), found, 0)


def solve(u, z, p, keep, sharpen=True) -> Solution:
    """The exact answer for every row, conventions included."""
    with np.errstate(all="ignore"):
        return _solve(u.astype(WIDE), z.astype(WIDE), p.astype(WIDE)[:, None], keep, sharpen)


def _solve(u, z, p, keep, sharpen):
    infinite, p = np.isinf(p), np.clip(p, -INFINITE, INFINITE)
    sign = np.where(p >= 0, 1, -1).astype(WIDE)
    u, z = np.where(keep, u, 0), np.where(keep, z, 0)
    zero = keep & np.isneginf(u)
    some = keep & ~zero
    dead = ~some.any(1, keepdims=True) | ((p <= 0) & zero.any(1, keepdims=True))
    p1 = np.where(p == 0, 1, p)

    z = z - _largest(z, keep, sign if sharpen else 1)
    q = (p if sharpen else 1) * z
    log_z = _log_sum(q, keep)
    v = np.where(keep, np.exp(q - log_z), 0)
    u = np.where(zero, 0, u)
    reference = _largest(u, some, sign)
    d = u - reference
    y = z + d if sharpen else z + p * d
    y_reference = _largest(y, some, sign if sharpen else 1)
    x = np.where(some, (p if sharpen else 1) * (y - y_reference), -np.inf)
    log_w = _log_sum(x, some)
    over_p = np.where(p == 0, d, np.expm1(p * d) / p1)
    mean = np.sum(np.where(keep, v * np.where(zero, -1 / p1, over_p), 0), axis=1, keepdims=True)
    near = p * mean >= -0.5
    concentrated = y_reference + (log_w - log_z) / p1 if sharpen else (y_reference + log_w - log_z) / p1
    safe = np.where(near, mean, 0)
    rho = np.where(near, np.where(p == 0, safe, np.log1p(p * safe) / p1), concentrated)

    w = np.where(some, np.exp(x - log_w), 0)
    ratio = d - rho
    s = np.where(some, p * ratio, 0)
    close = np.abs(s) < 0.5
    difference = np.where(zero, -v, np.where(close, v * np.expm1(s), w - v))
    difference_over_p = np.where(p == 0, v * ratio, np.where(zero, -v, difference) / p1)
    far = (np.where(w > 0, w * (s - 1), 0) + v) / p1 / p1
    terms = np.where(zero, v / p1 / p1, np.where(close, v * ratio**2 * _psi(np.where(close, s, 0)), far))
    if sharpen:
        terms = terms + difference_over_p * (z - np.sum(v * z, axis=1, keepdims=True))
    slope = np.sum(np.where(keep, terms, 0), axis=1, keepdims=True)

    def alive(x):
        return np.where(dead, 0, np.where(keep, x, 0) if x.shape == keep.shape else x)

    return Solution(
        log_r=np.where(dead, -np.inf, reference + rho),
        w=alive(w),
        b=alive(difference if sharpen else difference_over_p),
        v=alive(v),
        slope=np.where(infinite, 0, alive(slope)),
        dead=dead,
        log_ratio=np.where(dead, 0, np.abs(rho)),
    )
