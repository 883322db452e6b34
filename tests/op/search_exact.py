"""What the random search compares with: exact outputs of a call, and the error that no arithmetic of its dtype avoids.

As in the table (`make_table`), the noise of a derivative is a rounding of it, plus what it moves when every input moves
by half an ulp, plus a rounding of r where derivatives are by log states; that of the value is its mark N1. Second
derivatives are central differences of exact gradients in wide floats, and their noise is the same in the next order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.op.oracle import WIDE, Solution, solve
from tests.op.tolerances import U32, value_bound

OUTPUTS = ("r", "dstates", "dz", "dp", "jvp", "hstates", "hz", "hp")
TINY, HUGE = WIDE(np.finfo(np.float32).tiny), WIDE(np.finfo(np.float32).max) / 4
FLOOR = WIDE(np.float32(1e-6))
SILENT = TINY / WIDE(4e-18)  # a share of which a sum in float32 may know nothing (lnpool._formulas.single_pass)
STEP = WIDE(1e-5)
LIMIT_ROUNDINGS = 8  # of log h, where a scale limit computes it


class Expected(NamedTuple):
    """One output in the shape of the op's, the denominator of E, and where the comparison means something."""

    exact: np.ndarray
    noise: np.ndarray
    relevant: np.ndarray


class Rows(NamedTuple):
    """Problems as rows: x, z, keep [N T], p [N]."""

    x: np.ndarray
    z: np.ndarray
    p: np.ndarray


class Gradients(NamedTuple):
    """r [N 1], by x and z [N T], by p [N 1]."""

    r: np.ndarray
    x: np.ndarray
    z: np.ndarray
    p: np.ndarray


class Limit(NamedTuple):
    """log h of x, and its first and second derivative."""

    u: Callable
    first: Callable
    second: Callable


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _softplus_slope(x):
    return _sigmoid(x) / np.log1p(np.exp(x))


LIMITS = {
    "tanh": Limit(np.tanh, lambda x: 1 / np.cosh(x) ** 2, lambda x: -2 * np.tanh(x) / np.cosh(x) ** 2),
    "sigmoid": Limit(lambda x: -np.log1p(np.exp(-x)), lambda x: _sigmoid(-x), lambda x: -_sigmoid(x) * _sigmoid(-x)),
    "softplus": Limit(
        lambda x: np.log(np.log1p(np.exp(x))),
        _softplus_slope,
        lambda x: _softplus_slope(x) * (_sigmoid(-x) - _softplus_slope(x)),
    ),
    "relu_clip": Limit(
        lambda x: np.log(np.clip(x, FLOOR, 1)),
        lambda x: np.where((x > FLOOR) & (x < 1), 1 / x, 0),
        lambda x: np.where((x > FLOOR) & (x < 1), -1 / x**2, 0),
    ),
    "abs": Limit(lambda x: np.log(np.abs(x)), lambda x: 1 / x, lambda x: -1 / x**2),
    "exp": Limit(lambda x: x, np.ones_like, np.zeros_like),
}
_IDENTITY = LIMITS["exp"]


def _half_ulp(x):
    narrow = np.abs(np.where(np.isfinite(x), x, 0)).astype(np.float32)
    return np.where(np.isfinite(x), np.spacing(np.maximum(narrow, np.float32(TINY))), 0).astype(WIDE) / 2


class Exact:
    """The exact answers for the rows of one call."""

    def __init__(self, form: str, sharpen: bool, log_output: bool, keep: np.ndarray) -> None:
        self.linear, self.sharpen, self.log_output, self.keep = form == "linear", sharpen, log_output, keep
        self.limit = LIMITS.get(form, _IDENTITY)
        self.is_limit = form in LIMITS
        self.log_bound = float(form.split()[1]) if form.startswith("bounded") else -np.inf

    def solve(self, a: Rows) -> Solution:
        """L and its first derivatives by log h."""
        u = np.log(np.where(a.x > 0, a.x, 0)) if self.linear else self.limit.u(a.x)
        return solve(u, a.z, a.p, self.keep, self.sharpen)

    def gain(self, s: Solution):
        """d result/d log r: r, or 1 where log r is the result."""
        return np.where(s.dead, 0, 1).astype(WIDE) if self.log_output else s.r

    def gradients(self, a: Rows) -> Gradients:
        """The value and its first derivatives by x, z and p."""
        s = self.solve(a)
        gain = self.gain(s)
        if self.linear:
            at_zero = np.where((a.p[:, None] == 1) & ~s.dead, s.v * gain / np.where(s.dead, 1, s.r), 0)
            by_x = np.where(a.x > 0, gain * s.w / np.where(a.x > 0, a.x, 1), at_zero)
        else:
            by_x = np.where(s.w > 0, gain * s.w * self.limit.first(a.x), 0)
        value = s.log_r if self.log_output else s.r
        return Gradients(value, np.where(self.keep, by_x, 0), gain * s.b, gain * s.slope)

    def zeros(self, a: Rows):
        """Which tokens have h = 0 [N T]."""
        return self.keep & (a.x == (0 if self.linear else -np.inf))

    def along(self, a: Rows, directions: Rows) -> Gradients:
        """The directional derivative of the gradients."""
        u = np.log(np.where(a.x > 0, a.x, 1)) if self.linear else self.limit.u(a.x)
        reach = _spread(u, self.keep) + (_spread(a.z, self.keep) if self.sharpen else 0)
        by_u = np.where(self.keep & (a.x != 0), np.abs(directions.x) / (a.x if self.linear else 1), 0)
        move = np.max(np.where(self.keep, by_u + np.abs(directions.z), 0), axis=1, keepdims=True)
        p, dp = a.p[:, None], directions.p[:, None]
        step = STEP / (1 + (1 + np.abs(p)) * (1 + move) + np.abs(dp) * reach)
        pole = self.zeros(a).any(axis=1, keepdims=True) & (p != 0) & (dp != 0)  # at p = 0: the difference stays away
        step = np.where(pole, np.minimum(step, 10 * STEP * np.abs(p) / np.where(dp == 0, 1, np.abs(dp))), step)
        up, down = (
            self.gradients(Rows(a.x + e * directions.x, a.z + e * directions.z, (p + e * dp)[:, 0]))
            for e in (step, -step)
        )
        return Gradients(*((x - y) / (2 * step) for x, y in zip(up, down, strict=True)))

    def moved(self, a: Rows, by: Rows) -> Gradients:
        """How far value and gradients move, to first order and at worst, when the inputs move by up to ``by``.

        ``by.x`` is for log h here. The matrices of second derivatives are those of `make_table.inherent`.
        """
        s = self.solve(a)
        reach = _spread(np.where(np.isfinite(a.z), a.z, 0), self.keep)
        step = (STEP / (1 + np.abs(a.p[:, None]) + 200 + reach)).astype(WIDE)
        up, down = (self.solve(a._replace(p=a.p + e[:, 0])) for e in (step, -step))
        by_p = [
            np.nan_to_num((x - y) / (2 * step)) for x, y in ((up.w, down.w), (up.b, down.b), (up.slope, down.slope))
        ]
        p = np.where(np.isinf(a.p), 0, a.p)[:, None, None]
        c = p if self.sharpen else 1
        w, b, v = s.w[:, :, None], s.b[:, :, None], s.v[:, :, None]
        wt, bt = (np.swapaxes(x, 1, 2) for x in (w, b))
        one = np.eye(w.shape[1])
        spread = w * one - w * wt
        curve = c * (b * one - b * wt - v * bt)
        own = w * one if self.linear else 0
        du, dz, dp = by.x[:, :, None], by.z[:, :, None], by.p[:, None]
        over = lambda m, d: np.matmul(np.abs(m), d)[:, :, 0]  # noqa: E731
        r, k = self.gain(s), 0 if self.log_output else 1  # the derivative of r itself adds products of the first ones
        alive = lambda x: np.where(s.dead, 0, x)  # noqa: E731
        return Gradients(
            r=alive(r * (np.sum(s.w * by.x + np.abs(s.b) * by.z, 1, keepdims=True) + np.abs(s.slope) * dp)),
            x=alive(
                r
                * (
                    over(k * w * wt + p * spread - own, du)
                    + over(k * w * bt + c * spread, dz)
                    + np.abs(k * s.w * s.slope + by_p[0]) * dp
                )
            ),
            z=alive(
                r
                * (
                    over(k * b * wt + c * spread, du)
                    + over(k * b * bt + curve, dz)
                    + np.abs(k * s.b * s.slope + by_p[1]) * dp
                )
            ),
            p=alive(
                r
                * (
                    np.sum(
                        np.abs(k * s.slope * s.w + by_p[0]) * by.x + np.abs(k * s.slope * s.b + by_p[1]) * by.z,
                        1,
                        keepdims=True,
                    )
                    + np.abs(k * s.slope**2 + by_p[2]) * dp
                )
            ),
        )


def _spread(x, keep):
    finite = keep & np.isfinite(x)
    x = np.where(finite, x, 0)
    return np.max(np.abs(x), axis=1, keepdims=True)


def expected(program, problem, second: bool) -> dict[str, Expected]:
    """Every output of the call, in the shape in which the op returns it."""
    with np.errstate(all="ignore"):
        return _expected(program, problem, second)


def _expected(program, problem, second):
    rows, features = problem.g.shape
    flat = lambda x: np.moveaxis(x, -1, 1).reshape(rows * features, -1)  # noqa: E731
    heads = problem.scores.shape[-1] if problem.scores.ndim == 3 else 1

    def of_scores(x):
        wide = np.repeat(x.reshape(rows, -1, heads), features // heads, axis=2)
        return flat(wide)

    def of_p(p):
        wide = (
            p[:, None] if problem.layout == "rows" else np.repeat(p.reshape(1, -1), features // max(p.size, 1), axis=1)
        )
        return np.broadcast_to(wide, (rows, features)).reshape(-1).astype(WIDE)

    keep = flat(np.broadcast_to(problem.real[..., None], problem.states.shape))
    clean = lambda x, fill: np.where(keep, x, fill).astype(WIDE)  # noqa: E731
    a = Rows(clean(flat(problem.states), 1), clean(of_scores(problem.scores), 0), of_p(problem.p))
    moving = Rows(
        clean(flat(problem.directions[0]), 0), clean(of_scores(problem.directions[1]), 0), of_p(problem.directions[2])
    )
    exact = Exact(program.form, program.sharpen, program.log_output, keep)
    g = problem.g.reshape(-1, 1).astype(WIDE)
    shapes = _Shapes(problem, heads)
    value, noise = _first(exact, a)
    ok = _comparable(exact, a)
    finite = lambda x: (np.abs(x) < HUGE) & np.isfinite(x) & ok  # noqa: E731
    gradients = {"dstates": (value.x, noise.x), "dz": (value.z, noise.z), "dp": (value.p, noise.p)}
    out = {"r": Expected(shapes.r(value.r), shapes.r(noise.r), shapes.r(finite(value.r)))}
    inside = np.all(np.abs(value.x) < HUGE, axis=1, keepdims=True)  # else a product of the partials overflows
    jvp, jvp_noise = (
        np.sum(x * mx + z * mz, 1, keepdims=True) + p * mp
        for x, z, p, mx, mz, mp in (
            (value.x, value.z, value.p, moving.x, moving.z, moving.p[:, None]),
            (noise.x, noise.z, noise.p, np.abs(moving.x), np.abs(moving.z), np.abs(moving.p[:, None])),
        )
    )
    inside &= np.abs(value.p) < HUGE
    out["jvp"] = Expected(shapes.r(jvp), shapes.r(jvp_noise), shapes.r(finite(jvp) & inside))
    if second:
        curved, curved_noise = _second(exact, a, moving)
        gradients |= {"hstates": (curved.x, curved_noise.x), "hz": (curved.z, curved_noise.z)}
        gradients["hp"] = (curved.p, curved_noise.p)
        r = exact.solve(a).r  # one that is flushed to 0 has no derivatives
        if exact.linear and program.implementation == "xla":  # reverse over reverse multiplies three states
            inside &= np.all(~keep | (a.x == 0) | (np.abs(np.log(np.where(a.x > 0, a.x, 1))) < 28), 1, keepdims=True)
        ok2 = (
            ok
            & inside
            & ((r == 0) | (r > 1e3 * TINY) | program.log_output)
            # r is multiplied by p and by the direction of p before the shares that make up for it come in
            & ((r * (1 + np.abs(a.p[:, None])) * (1 + np.abs(moving.p[:, None])) < HUGE) | program.log_output)
            & (np.abs(a.p[:, None]) <= 1e4)
            & ~_at_a_kink(exact, a, moving)
        )
    for name, (x, error) in gradients.items():
        use = ok2 if name.startswith("h") else ok
        relevant = (np.abs(x) < HUGE) & np.isfinite(x) & np.isfinite(error) & use
        out[name] = shapes.gradient(name, g * x, np.abs(g) * error, np.broadcast_to(relevant, x.shape))
    return out


def _first(exact: Exact, a: Rows) -> tuple[Gradients, Gradients]:
    """Exact value and gradients, and their noise."""
    value = exact.gradients(a)
    s = exact.solve(a)
    ulps = Rows(_of_log_states(exact, a), _half_ulp(a.z), _half_ulp(a.p))
    moved = exact.moved(a, ulps)
    r, u = exact.gain(s), WIDE(U32)
    inherent_x, floor = _by_x(exact, a, s, moved.x), u * r * (0 if exact.linear else _scale_of(exact, a))
    roundings = 2 * exact.log_output if exact.linear else 1  # of a number as large as log r: a logarithm, a sum
    rounding = roundings * u * r * np.abs(np.where(s.dead, 0, s.log_r))
    below = np.maximum(s.log_ratio, np.where(s.dead, 0, exact.log_bound - s.log_r))  # a promised bound is the reference
    noise = Gradients(
        r=u * r * value_bound(below) + (0 if exact.linear else moved.r) + rounding + TINY,
        x=u * np.abs(value.x) + inherent_x + floor + TINY,
        z=u * np.abs(value.z) + moved.z + u * r + TINY,
        p=u * np.abs(value.p) + moved.p + u * r + TINY * (1 + np.abs(s.slope)),  # an r below float range is 0
    )
    return value, noise


def _scale_of(exact: Exact, a: Rows):
    """How steep a scale limit is, where it is steep."""
    return np.maximum(1, np.abs(exact.limit.first(a.x)))


def _of_log_states(exact: Exact, a: Rows):
    """How far log h moves by a rounding of the input, and of the scale limit."""
    if exact.linear:
        return np.where(a.x > 0, _half_ulp(a.x) / np.where(a.x > 0, a.x, 1), 0)
    moved = np.abs(exact.limit.first(a.x)) * _half_ulp(a.x)
    if exact.is_limit:
        moved = moved + LIMIT_ROUNDINGS * _half_ulp(exact.limit.u(a.x))
    return np.where(np.isfinite(moved), moved, 0)


def _by_x(exact: Exact, a: Rows, s: Solution, by_u, move_x=None):
    """From a movement of r w, the derivative by log h, to one of the derivative by x."""
    if exact.linear:
        return np.where(a.x > 0, by_u / np.where(a.x > 0, a.x, 1), np.where(a.p[:, None] == 1, by_u + s.v * U32, 0))
    move_x = _half_ulp(a.x) if move_x is None else move_x
    chained = np.abs(exact.limit.first(a.x)) * by_u
    return np.where(s.w > 0, chained + exact.gain(s) * s.w * np.abs(exact.limit.second(a.x)) * move_x, chained)


def _second(exact: Exact, a: Rows, moving: Rows) -> tuple[Gradients, Gradients]:
    """The directional derivative of the gradients, and its noise."""
    curved = exact.along(a, moving)
    rng = np.random.default_rng(0)
    moved = [np.zeros_like(x) for x in curved]
    for _ in range(2):
        sign = lambda x: rng.choice([-1.0, 1.0], x.shape) * _half_ulp(x)  # noqa: E731
        near = exact.along(Rows(*(np.where(np.isfinite(x), x + sign(x) * (x != 0), x) for x in a)), moving)
        moved = [np.maximum(m, np.abs(x - y)) for m, x, y in zip(moved, near, curved, strict=True)]
    steep = np.where(a.x > 0, 1 / np.where(a.x > 0, a.x, 1), 0) if exact.linear else np.abs(exact.limit.first(a.x))
    sizes = Rows(np.where(np.isfinite(moving.x), np.abs(moving.x) * steep, 0), np.abs(moving.z), np.abs(moving.p))
    parts = exact.moved(a, sizes)
    by_x = _by_x(exact, a, exact.solve(a), parts.x, np.abs(moving.x))
    parts = parts._replace(x=by_x)
    # A difference such as w - v is known to a rounding of the larger term, and second order multiplies it by p.
    s = exact.solve(a)
    reach = 1 + _spread(np.log(np.where(a.x > 0, a.x, 1)) if exact.linear else exact.limit.u(a.x), exact.keep)
    reach = reach + _spread(a.z, exact.keep)
    push = (1 + np.abs(a.p[:, None])) * np.sum(sizes.x + sizes.z, 1, keepdims=True) + reach * sizes.p[:, None]
    push = np.where(np.isfinite(push), push, 0)
    parts = Gradients(
        r=parts.r,
        x=parts.x
        + push
        * exact.gain(s)
        * ((np.maximum(s.w, s.v) + SILENT / U32) * steep if exact.linear else _scale_of(exact, a)),
        z=parts.z + push * exact.gain(s),
        p=parts.p + push * exact.gain(s) * reach,
    )
    noise = (U32 * np.abs(x) + 2 * m + U32 * y + TINY for x, m, y in zip(curved, moved, parts, strict=True))
    return curved, Gradients(*noise)


def _comparable(exact: Exact, a: Rows):
    """Not where rounding decides which of two tokens an infinite exponent picks [N 1]."""
    u = np.log(np.where(a.x > 0, a.x, 1)) if exact.linear else np.where(np.isfinite(a.x), exact.limit.u(a.x), 0)
    close = np.zeros((len(a.p), 1), bool)
    for y in (a.z + u, a.z, u):
        y = np.sort(np.where(exact.keep, y, np.nan), axis=1)
        gap = np.diff(y, axis=1)
        near = (gap > 0) & (gap < 2.0**-16 * np.maximum(1, np.abs(y[:, 1:])))
        ties = (gap == 0) if y is not u else np.zeros_like(gap, bool)
        close |= (near | ties).any(1, keepdims=True)
    return ~(np.isinf(a.p)[:, None] & close)


def _at_a_kink(exact: Exact, a: Rows, moving: Rows):
    """Rows whose second derivative meets a corner of a scale limit, or a step at zero states and p = 0 or 1 [N 1]."""
    near = lambda corner: np.abs(a.x - corner) <= 300 * STEP * np.abs(moving.x)  # noqa: E731  # log x curves there
    step = exact.zeros(a).any(1, keepdims=True) & (np.abs(a.p) <= 4 * STEP * np.abs(moving.p))[:, None]
    if exact.linear:
        at = exact.keep & (a.x == 0) & (a.p[:, None] == 1)
    elif exact.limit is LIMITS["relu_clip"]:
        at = exact.keep & (near(FLOOR) | near(1))
    elif exact.limit is LIMITS["abs"]:
        at = exact.keep & near(0)
    else:
        at = np.zeros(a.x.shape, bool)
    return at.any(1, keepdims=True) | step


class _Shapes:
    """From rows of problems to the arrays that the op returns: sums over features for scores, over texts for p."""

    def __init__(self, problem, heads: int) -> None:
        self.problem, self.heads = problem, heads
        self.rows, self.features = problem.g.shape

    def _tokens(self, x):
        """[N T] -> [B T D]."""
        return np.moveaxis(x.reshape(self.rows, self.features, -1), 1, 2)

    def _cut(self, x):
        return x[self.problem.place] if self.problem.layout.startswith("packed") else x

    def r(self, x):
        """[N 1] -> the shape of the pooled states."""
        x = np.broadcast_to(x, (self.rows * self.features, 1)).reshape(self.rows, self.features)
        return x[:, 0] if self.problem.layout == "rows" else x

    def gradient(self, name, x, noise, relevant) -> Expected:
        """The gradient of one argument, summed as its shape demands."""
        if name.endswith("states"):
            parts = [self._cut(self._tokens(y)) for y in (x, noise, relevant)]
            return Expected(*(y[..., 0] if self.problem.layout == "rows" else y for y in parts))
        if name.endswith("z"):
            groups = (*self.problem.mask.shape, self.heads, self.features // self.heads)
            x, noise, relevant = (self._tokens(y).reshape(groups) for y in (x, noise, relevant))
            parts = (x.sum(-1), noise.sum(-1), relevant.all(-1))
            return Expected(*(self._cut(y[..., 0] if self.problem.scores.ndim == 2 else y) for y in parts))
        shape = self.problem.p.shape
        x, noise, relevant = (y.reshape(self.rows, self.features) for y in (x, noise, relevant))
        if self.problem.layout == "rows":
            return Expected(x[:, 0], noise[:, 0], relevant[:, 0])
        groups = (shape[0], -1) if shape else (1, -1)
        x, noise, relevant = (y.T.reshape(groups) for y in (x, noise, relevant))
        return Expected(*(y.reshape(shape) for y in (x.sum(1), noise.sum(1), relevant.all(1))))
