"""What the random search feeds to the op: states, scores, exponents and masks of ordinary and of extreme rows."""

import dataclasses

import numpy as np

from tests.op.make_table import flushed

TOKENS = 8
SHAPES = {  # rows of texts, features: 65,536 elements lie between small and large, where a CPU begins to loop
    "rows": (512, 1),
    "small": (12, 6),
    "large": (64, 160),
    "packed": (12, 6),
    "packed large": (64, 160),
    "features": (12, 6),
    "heads": (12, 6),
}
HEADS = 3
SMALLEST, LARGEST = 1e-30, 1e4  # sizes of an exponent


@dataclasses.dataclass(frozen=True)
class Problem:
    """One call, [B T ...] whatever the layout: texts are padded here, and packed where the layout says so."""

    layout: str
    family: str
    extreme: bool
    states: np.ndarray  # [B T D], raw: what the op is given
    scores: np.ndarray  # [B T] or [B T H]
    p: np.ndarray  # [], [B] (rows), [D] or [H]
    mask: np.ndarray  # [B T]
    g: np.ndarray  # [B D]
    directions: tuple  # of states, scores and p

    @property
    def count(self) -> int:
        """Texts times features."""
        return self.g.size

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each packed text: those before its padding, which the mask of a packed text does not cut."""
        return TOKENS - np.arange(len(self.mask)) % (TOKENS + 1)

    @property
    def place(self) -> np.ndarray:
        """Which places [B T] are tokens of the packed layout."""
        return np.arange(TOKENS) < self.lengths[:, None]

    @property
    def real(self) -> np.ndarray:
        """Tokens that count [B T]."""
        return self.mask & self.place if self.layout.startswith("packed") else self.mask

    def arrays(self) -> tuple:
        """The arguments of the compiled program."""
        arguments, directions = (self.states, self.scores, self.p), self.directions
        ids = np.zeros(0, np.int32)
        mask, g = self.mask, self.g
        if self.layout == "rows":
            arguments, directions = ((a[0][..., 0], *a[1:]) for a in (arguments, directions))
            g = g[:, 0]
        if self.layout.startswith("packed"):
            at = self.place
            arguments, directions = ((a[0][at], a[1][at], a[2]) for a in (arguments, directions))
            ids = (np.nonzero(at)[0].astype(np.int32), np.zeros(len(mask), np.int8))
            mask = mask[at]
        return arguments, mask, ids, g, directions


def _log_states(family: str, rng, shape) -> np.ndarray:
    """log h for forms that take any h > 0."""
    normal = np.log(np.abs(rng.standard_normal(shape)) + 0.05)
    base = rng.uniform(-69, 69, (shape[0], 1, 1))
    spread = 10.0 ** rng.uniform(-6, 1, (shape[0], 1, 1))
    return {
        "normal": lambda: normal,
        "far": lambda: base + spread * rng.standard_normal(shape),
        "near equal": lambda: normal[:, :1] + 1e-4 * rng.standard_normal(shape),
        "equal": lambda: np.broadcast_to(normal[:, :1], shape),
        "zeros": lambda: np.where(rng.random(shape) < 0.3, -np.inf, normal),
        "few zeros": lambda: np.where(rng.random(shape) < 0.08, -np.inf, base + normal),
        "all zero": lambda: np.where(rng.random((shape[0], 1, shape[2])) < 0.5, -np.inf, normal),
        "decades": lambda: rng.uniform(-69, 69, shape),
        "outlier": lambda: np.where(rng.random(shape) < 0.12, 46.0, normal),
        "spread scores": lambda: normal,
    }[family]()


FAMILIES = ("normal", "far", "near equal", "equal", "zeros", "few zeros", "all zero", "decades", "outlier")
EXTREME = ("decades", "outlier", "spread scores", "wide")


def _raw(form: str, rng, shape, family: str) -> np.ndarray:
    """Raw states for a scale limit."""
    x = rng.standard_normal(shape)
    return {
        "normal": lambda: x,
        "negative": lambda: -np.abs(x) - 0.1,
        "equal": lambda: np.broadcast_to(x[:, :1], shape),
        "constant": lambda: np.full(shape, rng.choice([-1.0, -3.0, 0.5, 2.0])),
        "far": lambda: rng.uniform(-30, 30, (shape[0], 1, 1)) + 0.5 * x,
        "wide": lambda: 10 * x,
    }[family]()


def _bounded(bound: float, rng, shape, family: str) -> np.ndarray:
    u = rng.uniform(-bound, bound, shape)
    return {
        "normal": lambda: u,
        "low": lambda: np.full(shape, -0.98 * bound) * (1 - 1e-3 * rng.random(shape)),
        "equal": lambda: np.broadcast_to(u[:, :1], shape),
        "ends": lambda: bound * rng.choice([-1.0, 1.0], shape),
        "zeros": lambda: np.where(rng.random(shape) < 0.3, -np.inf, u),
        "all zero": lambda: np.full(shape, -np.inf),
    }[family]()


def _exponents(rng, size) -> np.ndarray:
    magnitude = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), size))
    sign = np.where(rng.random(size) < 0.7, 1.0, -1.0)
    usual = np.where(rng.random(size) < 0.75, rng.uniform(1, 12, size), rng.uniform(-6, 6, size))
    special = rng.choice([0.0, 1.0, 2.0, np.inf, -np.inf, 1e4, -1.0, 1e-3], size)
    kind = rng.random(size)
    p = np.where(kind < 0.25, sign * magnitude, np.where(kind < 0.9, usual, special))
    return p.astype(np.float32)


def _mask(rng, shape) -> np.ndarray:
    mask = rng.random(shape) < rng.choice([0.3, 0.7, 1.0], (shape[0], 1))
    mask[rng.random(shape[0]) < 0.1] = False
    return mask


def draw(program, rng) -> Problem:
    """The problems of one call."""
    form, layout = program.form, program.layout
    rows, features = SHAPES[layout]
    shape = (rows, TOKENS, features)
    spread = 10.0 ** rng.uniform(-1, 0.7)
    if form in ("linear", "log"):
        family = str(rng.choice((*FAMILIES, "spread scores")))
        u = _log_states(family, rng, shape)
        states = flushed(np.exp(u).astype(np.float32)) if form == "linear" else u
    elif form.startswith("bounded"):
        family = str(rng.choice(("normal", "low", "equal", "ends", "zeros", "all zero")))
        states = _bounded(float(form.split()[1]), rng, shape, family)
    else:
        family = str(rng.choice(("normal", "negative", "equal", "constant", "far", "wide")))
        states = _raw(form, rng, shape, family)
    if family == "spread scores":
        spread = 5e3
    scores = spread * rng.standard_normal((*shape[:2], *((HEADS,) if layout == "heads" else ())))
    sizes = {"rows": (rows,), "features": (features,), "heads": (HEADS,)}
    p = _exponents(rng, sizes.get(layout, ()))
    mask = _mask(rng, shape[:2])
    states, scores = states.astype(np.float32), scores.astype(np.float32)
    directions = _directions(form, rng, states, scores, p, mask)
    hole = ~mask
    states = np.where(hole[..., None], rng.choice(np.float32([np.nan, np.inf, -np.inf, -3.0, 0.0]), shape), states)
    poison = rng.choice(np.float32([np.nan, np.inf, -np.inf, 0.0]), scores.shape)
    scores = np.where(hole.reshape(*hole.shape, *(1,) * (scores.ndim - 2)), poison, scores)
    g = (rng.choice([-1.0, 1.0], (rows, features)) * rng.uniform(0.5, 2.0, (rows, features))).astype(np.float32)
    extreme = family in EXTREME or not np.all(np.abs(p[np.isfinite(p)]) <= 100)
    return Problem(layout, family, extreme, states, scores, p, mask, g, directions)


def _directions(form, rng, states, scores, p, mask) -> tuple:
    """A direction for each argument; that of linear states is relative to the state, and nothing moves at padding.

    Beside a zero the result has a pole at p = 0, so the direction of p is relative too; elsewhere it may cross 0.
    """
    of_states = rng.standard_normal(states.shape).astype(np.float32)
    if form == "linear":
        of_states = of_states * states
    of_states = np.where(mask[..., None] & np.isfinite(states), of_states, 0).astype(np.float32)
    keep = mask.reshape(*mask.shape, *(1,) * (scores.ndim - 2))
    of_scores = np.where(keep, rng.standard_normal(scores.shape), 0).astype(np.float32)
    has_zeros = np.any(states == 0 if form == "linear" else np.isneginf(states))
    size = np.where(np.isfinite(p), np.maximum(np.abs(p), 0 if has_zeros else 1e-3), 0)
    return of_states, of_scores, (size * rng.choice([-1.0, 1.0], p.shape)).astype(np.float32)
