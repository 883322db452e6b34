"""The table of transforms: every transform of JAX, for every implementation, kind of input and size of batch.

    python -m tests.op.transforms [--only WORD]     # every cell: runs and agrees, refuses in one sentence, or fails

A cell runs the transform and compares with the reference, or raises one sentence that says what to do instead.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lnpool
from tests.op.running import float64
from tests.op.tolerances import SECOND_ORDER, TRANSFORMED, assert_agrees

IMPLEMENTATIONS = ("xla", "xla_jvp", "pallas", "reference")
# Rows, tokens, features on both sides of 65,536 elements, from which on a CPU loops over blocks.
SIZES = {"small": (8, 6, 4), "large": (32, 40, 64)}
HEADS = 2
KINDS: dict[str, dict] = {
    "dense": {},
    "masked": {},
    "packed": {},
    "per head": {},
    "per feature": {},
    "no scores": {},
    "log": {"log_states": True},
    "bounded": {"log_states": True, "log_bound": 4.0},
    **{limit: {"scale_limit": limit} for limit in lnpool.SCALE_LIMITS},
}
ROWS = PartitionSpec("data")
DEVICES = 4


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table."""

    transform: str
    implementation: str
    size: str
    kind: str

    def __str__(self) -> str:
        return f"{self.transform}-{self.implementation}-{self.size}-{self.kind}"


class Setting:
    """The arrays of a cell, and the op as a function of them; packed texts have the lengths that a mask would leave."""

    def __init__(self, cell: Cell, dtype=np.float32) -> None:
        self.cell, self.options = cell, KINDS[cell.kind]
        rng = np.random.default_rng(11)
        b, t, d = SIZES[cell.size]
        raw = rng.standard_normal((b, t, d))
        if self.options.get("scale_limit"):
            states = raw
        else:
            states = np.clip(0.6 * raw, -3, 3) if self.options.get("log_states") else np.exp(0.6 * raw)
        scores = rng.standard_normal((b, t, HEADS) if cell.kind == "per head" else (b, t))
        p = {"per head": rng.uniform(1, 4, HEADS), "per feature": rng.uniform(0.5, 4, d)}.get(cell.kind, 2.3)
        lengths = rng.integers(0, t + 1, b)
        mask = np.arange(t) < lengths[:, None]
        # Of both signs, but not as many of each: in a sum that cancels, a comparison would see rounding only.
        self.g = np.asarray(rng.choice([-1, 1], (b, d), p=[0.2, 0.8]) * rng.uniform(0.5, 2, (b, d)), dtype)
        self.mask = mask if cell.kind in ("masked", "packed") else None
        self.ids = np.nonzero(mask)[0].astype(np.int32) if cell.kind == "packed" else None
        self.padded = tuple(jnp.asarray(x, dtype) for x in (states, scores, p))
        if cell.kind == "packed":
            self.place = np.nonzero(mask)
            states, scores = states[self.place], scores[self.place]
        if cell.kind == "masked":
            states = np.where(mask[..., None], states, np.nan)
        self.arguments = tuple(jnp.asarray(x, dtype) for x in (states, scores, p))
        self.moves = (0, 2) if cell.kind == "no scores" else (0, 1, 2)  # what is differentiated

    @property
    def rows(self) -> int:
        return SIZES[self.cell.size][0]

    def pool(self, states, scores, p, *, mask="own", ids="own", **more):
        """The op, for this cell."""
        options = self.options | {"implementation": self.cell.implementation} | more
        scores = None if self.cell.kind == "no scores" else scores
        if self.cell.kind == "packed":
            ids = self.ids if isinstance(ids, str) else ids
            return lnpool.pool_packed(states, scores, p, segment_ids=ids, num_segments=self.rows, **options)
        mask = self.mask if isinstance(mask, str) else mask
        return lnpool.pool(states, scores, p, mask=None if mask is None else jnp.asarray(mask), **options)

    def loss(self, states, scores, p):
        """A number that every output enters."""
        return jnp.sum(self.g * self.pool(states, scores, p))

    def gradients(self, *a, f=None):
        """Value and gradients by what the kind has."""
        return jax.value_and_grad(f or self.loss, self.moves)(*a)

    @functools.cached_property
    def reference(self) -> "Setting":
        """The same numbers for the reference, which takes padded texts."""
        kind = "masked" if self.cell.kind == "packed" else self.cell.kind
        other = Setting(dataclasses.replace(self.cell, implementation="reference", kind=kind), self.g.dtype)
        other.arguments = self.padded
        return other

    def as_packed(self, tree):
        """Padded gradients of the reference -> packed, where this cell is packed."""
        if self.cell.kind != "packed":
            return tree
        value, (states, scores, p) = tree
        return value, (states[self.place], scores[self.place], p)

    def want(self):
        """Value of the loss and gradients by the reference."""
        other = self.reference
        return self.as_packed(jax.jit(other.gradients)(*other.arguments))

    def want_value(self):
        """Pooled states by the reference."""
        return jax.jit(self.reference.pool)(*self.reference.arguments)


def agree(got, want, agreement=TRANSFORMED) -> None:
    """Leaf by leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda x, y: assert_agrees(x, y, agreement), got, want)


TRANSFORMS: dict[str, Callable[[Setting], None]] = {}
FORWARD = set()  # those that differentiate the op in forward mode
OF_A_GRADIENT = ("hessian by p", "jvp of grad")  # there JAX may differentiate the backward pass, and then it is right


def transform(name: str, forward: bool = False):
    """A row of the table."""

    def add(f):
        TRANSFORMS[name] = f
        if forward:
            FORWARD.add(name)
        return f

    return add


@transform("eager")
def _eager(s):
    agree(s.pool(*s.arguments), s.want_value())


@transform("jit")
def _jit(s):
    agree(jax.jit(s.pool)(*s.arguments), s.want_value())


@transform("grad")
def _grad(s):
    agree(jax.grad(s.loss, s.moves)(*s.arguments), s.want()[1])


@transform("jit of value_and_grad")
def _value_and_grad(s):
    agree(jax.jit(s.gradients)(*s.arguments), s.want())


def _direction(s, a):
    """Directions of all arguments, of the size of each; none at padding."""
    clean = [jnp.where(jnp.isnan(x), 0, x) for x in a]
    return tuple(jnp.cos(7 * jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) * x for x in clean)


def _vdot(s, gradients, directions):
    return sum(jnp.vdot(g, directions[i]) for g, i in zip(gradients, s.moves, strict=True))


@transform("jvp", forward=True)
def _jvp(s):
    directions = _direction(s, s.arguments)
    got = jax.jit(lambda *a: jax.jvp(s.loss, a, directions))(*s.arguments)
    value, gradients = s.want()
    agree(got, (value, _vdot(s, gradients, directions)))


@transform("linearize", forward=True)
def _linearize(s):
    directions = _direction(s, s.arguments)
    value, linear = jax.linearize(s.loss, *s.arguments)
    want, gradients = s.want()
    agree((value, linear(*directions)), (want, _vdot(s, gradients, directions)))


def _some(x):
    """A few outputs, whose Jacobian is small."""
    return x[:2, :3]


@transform("jacfwd by p", forward=True)
def _jacfwd(s):
    by_p = lambda x: jax.jit(jax.jacfwd(lambda p: _some(x.pool(*x.arguments[:2], p))))(x.arguments[2])  # noqa: E731
    agree(by_p(s), jax.jacrev(lambda p: _some(s.reference.pool(*s.reference.arguments[:2], p)))(s.arguments[2]))


@transform("jacrev by p")
def _jacrev(s):
    by_p = lambda x: jax.jit(jax.jacrev(lambda p: _some(x.pool(*x.arguments[:2], p))))(x.arguments[2])  # noqa: E731
    agree(by_p(s), by_p(s.reference))


def _in_float64(s, compute):
    """The second order is compared in float64, where the reference is good for it."""
    with float64():
        wide = Setting(s.cell, np.float64)
        agree(compute(wide, *wide.arguments), compute(wide.reference, *wide.reference.arguments), SECOND_ORDER)


@transform("hessian by p", forward=True)
def _hessian(s):
    _in_float64(s, lambda x, states, scores, p: jax.jit(jax.hessian(lambda p: x.loss(states, scores, p)))(p))


@transform("reverse over reverse by p")
def _reverse_over_reverse(s):
    _in_float64(s, lambda x, states, scores, p: jax.jit(jax.jacrev(jax.grad(lambda p: x.loss(states, scores, p))))(p))


def _curvature(s, second):
    """Second derivatives along a direction: by all arguments at once."""
    with float64():
        wide = Setting(s.cell, np.float64)
        other = wide.reference
        directions = _direction(wide, wide.arguments)
        padded = _direction(other, other.arguments)
        if s.cell.kind == "packed":
            rows = (
                jnp.zeros_like(x).at[wide.place].set(y) for x, y in zip(other.arguments, directions[:2], strict=False)
            )
            padded = (*rows, directions[2])
        got = second(wide, wide.arguments, directions)
        want = second(other, other.arguments, padded)
        agree(got, wide.as_packed((None, want))[1], SECOND_ORDER)


@transform("jvp of grad", forward=True)
def _jvp_of_grad(s):
    def second(x, a, directions):
        moves = lambda *m: [m[x.moves.index(i)] if i in x.moves else a[i] for i in range(3)]  # noqa: E731
        grad = lambda *m: jax.grad(lambda *m: x.loss(*moves(*m)), tuple(range(len(x.moves))))(*m)  # noqa: E731
        chosen = lambda y: tuple(y[i] for i in x.moves)  # noqa: E731
        return jax.jit(lambda *m: jax.jvp(grad, m, chosen(directions))[1])(*chosen(a))

    _curvature(s, second)


@transform("grad of vdot of grad")
def _grad_of_grad(s):
    def second(x, a, directions):
        def along(*a):
            return _vdot(x, jax.grad(x.loss, x.moves)(*a), directions)

        return jax.jit(jax.grad(along, x.moves))(*a)

    _curvature(s, second)


def _vmapped(s, axes):
    """Two problems at once, differing in the chosen arguments, against one by one."""
    other = tuple(x * 0.75 if axis == 0 else x for x, axis in zip(s.arguments, axes, strict=True))
    stacked = tuple(jnp.stack([x, y]) if axis == 0 else x for x, y, axis in zip(s.arguments, other, axes, strict=True))
    got = jax.jit(jax.vmap(s.gradients, axes))(*stacked)
    run = jax.jit(s.reference.gradients)
    padded = tuple(x * 0.75 if axis == 0 else x for x, axis in zip(s.reference.arguments, axes, strict=True))
    rows = [s.as_packed(run(*a)) for a in (s.reference.arguments, padded)]
    agree(got, jax.tree.map(lambda *x: jnp.stack(x), *rows))


for _name, _axes in {
    "states": (0, None, None),
    "scores": (None, 0, None),
    "p": (None, None, 0),
    "all": (0, 0, 0),
}.items():
    TRANSFORMS[f"vmap over {_name}"] = functools.partial(_vmapped, axes=_axes)


@transform("vmap over mask or ids")
def _vmap_mask(s):
    if s.cell.kind == "packed":
        ids = jnp.stack([s.ids, jnp.minimum(s.ids, s.rows // 2)])
        got = jax.jit(jax.vmap(lambda i: s.pool(*s.arguments, ids=i)))(ids)
        agree(got, jnp.stack([s.pool(*s.arguments, ids=i) for i in ids]))
        return
    b, t, _ = SIZES[s.cell.size]
    own = np.ones((b, t), bool) if s.mask is None else s.mask
    masks = jnp.stack([jnp.asarray(own), jnp.asarray(own & (np.arange(t) % 2 == 0))])
    got = jax.jit(jax.vmap(lambda m: s.pool(*s.arguments, mask=m)))(masks)
    agree(got, jnp.stack([s.reference.pool(*s.reference.arguments, mask=m) for m in masks]))


@transform("grad of vmap, shared p")
def _grad_of_vmap(s):
    def loss(states, scores, p):
        two = jax.vmap(lambda x, z: s.loss(x, z, p))(jnp.stack([states] * 2), jnp.stack([scores] * 2))
        return jnp.sum(two) / 2

    agree(jax.jit(functools.partial(s.gradients, f=loss))(*s.arguments), s.want())


@transform("remat")
def _remat(s):
    agree(jax.jit(functools.partial(s.gradients, f=jax.checkpoint(s.loss)))(*s.arguments), s.want())


@transform("scan")
def _scan(s):
    def loss(*a):
        return lax.scan(lambda total, weight: (total + weight * s.loss(*a), None), jnp.zeros(()), jnp.ones(2) / 2)[0]

    agree(jax.jit(functools.partial(s.gradients, f=loss))(*s.arguments), s.want())


@transform("while")
def _while(s):
    def value(*a):
        shape = jax.eval_shape(s.pool, *a)
        step = lambda state: (state[0] + 1, s.pool(*a))  # noqa: E731
        return lax.while_loop(lambda state: state[0] < 2, step, (0, jnp.zeros(shape.shape, shape.dtype)))[1]

    agree(jax.jit(value)(*s.arguments), s.want_value())


@transform("cond")
def _cond(s):
    def loss(*a):
        return lax.cond(jnp.sum(a[2]) > 0, s.loss, lambda *a: jnp.zeros(()), *a)

    agree(jax.jit(functools.partial(s.gradients, f=loss))(*s.arguments), s.want())


def _mesh(kind: str | None = None) -> Mesh:
    devices = np.array(jax.devices()[:DEVICES])
    if kind is None:
        return Mesh(devices, ("data",))
    return Mesh(devices, ("data",), axis_types=(getattr(jax.sharding.AxisType, kind),))


def _cut_by_rows(s, mesh):
    """Arguments whose rows are cut over the devices; p, and the texts of packed tokens, are whole everywhere."""
    spec = PartitionSpec() if s.cell.kind == "packed" else ROWS
    put = lambda x, where: jax.device_put(x, NamedSharding(mesh, where))  # noqa: E731
    return (put(s.arguments[0], spec), put(s.arguments[1], spec), put(s.arguments[2], PartitionSpec()))


@transform("shard_map over rows")
def _shard_map(s):
    if s.cell.kind == "packed":
        return  # texts that devices share are those of "shard_map over tokens"
    mask = np.ones(SIZES[s.cell.size][:2], bool) if s.mask is None else s.mask

    def pool(states, scores, p, mask):
        return s.pool(states, scores, p, mask=mask)

    cut = jax.shard_map(pool, mesh=_mesh(), in_specs=(ROWS, ROWS, PartitionSpec(), ROWS), out_specs=ROWS)
    loss = lambda *a: jnp.sum(s.g * cut(*a, mask))  # noqa: E731
    agree(jax.jit(functools.partial(s.gradients, f=loss))(*s.arguments), s.want())


@transform("shard_map over tokens")
def _shard_map_tokens(s):
    same = PartitionSpec()
    if s.cell.kind == "packed":
        extra = -len(s.ids) % DEVICES
        pad = lambda x: jnp.concatenate([x, jnp.zeros((extra, *x.shape[1:]), x.dtype)])  # noqa: E731
        ids = np.concatenate([s.ids, np.full(extra, s.rows, np.int32)])
        checked = jax.__version_info__ >= (0, 8)

        def pool(states, scores, p, ids):
            return s.pool(states, scores, p, ids=ids, axis_name="data")

        cut = jax.shard_map(pool, mesh=_mesh(), in_specs=(ROWS, ROWS, same, ROWS), out_specs=same, check_vma=checked)
        loss = lambda x, z, p: jnp.sum(s.g * cut(pad(x), pad(z), p, ids))  # noqa: E731
    else:
        b, t, _ = SIZES[s.cell.size]
        t -= t % DEVICES
        mask = np.arange(SIZES[s.cell.size][1]) < t
        mask = np.broadcast_to(mask if s.mask is None else mask & s.mask, (b, mask.size))
        tokens = PartitionSpec(None, "data")

        def pool(states, scores, p, mask):
            return s.pool(states, scores, p, mask=mask, axis_name="data")

        cut = jax.shard_map(pool, mesh=_mesh(), in_specs=(tokens, tokens, same, tokens), out_specs=same)
        loss = lambda x, z, p: jnp.sum(s.g * cut(x[:, :t], z[:, :t], p, mask[:, :t]))  # noqa: E731
        s.reference.mask = mask
    agree(jax.jit(functools.partial(s.gradients, f=loss))(*s.arguments), s.want())


def _on_mesh(s, kind):
    """Value and gradients keep the sharding of the rows."""
    mesh = _mesh(kind)
    with jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh):
        a = _cut_by_rows(s, mesh)
        spec = PartitionSpec() if s.cell.kind == "packed" else ROWS
        g = jax.device_put(s.g, NamedSharding(mesh, spec))
        loss = lambda *a: jnp.sum(g * s.pool(*a))  # noqa: E731
        pooled = jax.jit(s.pool)(*a)
        value, gradients = jax.jit(functools.partial(s.gradients, f=loss))(*a)
    if s.cell.kind != "packed" and s.cell.implementation != "reference":
        for x in (pooled, gradients[0]):
            assert x.sharding.spec[:1] == ("data",), f"the rows were gathered: {x.sharding.spec}"
    to_host = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
    agree(to_host(pooled), s.want_value())
    agree(to_host((value, gradients)), s.want())


for _kind in ("Explicit", "Auto"):
    TRANSFORMS[f"{_kind.lower()} mesh"] = functools.partial(_on_mesh, kind=_kind)


@transform("pmap")
def _pmap(s):
    if s.cell.kind == "packed":
        return
    cut = lambda x: x.reshape(DEVICES, -1, *x.shape[1:])  # noqa: E731
    mask = cut(np.ones(SIZES[s.cell.size][:2], bool) if s.mask is None else s.mask)
    pool = jax.pmap(lambda x, z, p, m: s.pool(x, z, p, mask=m), in_axes=(0, 0, None, 0))
    got = pool(cut(s.arguments[0]), cut(s.arguments[1]), s.arguments[2], mask)
    agree(np.asarray(got).reshape(s.g.shape), s.want_value())


def _exported(s, shapes):
    """Value and gradients, exported for these shapes, called with the arrays of the cell."""
    from jax import export

    masks = () if s.mask is None or s.cell.kind == "packed" else (jnp.asarray(s.mask),)
    extra = (jnp.asarray(s.ids),) if s.cell.kind == "packed" else masks

    def run(states, scores, p, g, *extra):
        named = {"ids": extra[0]} if s.cell.kind == "packed" else {"mask": extra[0] if extra else None}
        return jax.value_and_grad(lambda *a: jnp.sum(g * s.pool(*a, **named)), s.moves)(states, scores, p)

    a = (*s.arguments, s.g, *extra)
    described = [
        jax.ShapeDtypeStruct(shape(x) if callable(shape) else x.shape, x.dtype)
        for x, shape in zip(a, shapes(a), strict=True)
    ]
    exported = export.export(jax.jit(run))(*described)
    agree(exported.call(*a), s.want())


@transform("export")
def _export(s):
    _exported(s, lambda a: [None] * len(a))


def _export_symbolic(s, axis):
    """The rows (axis 0) or the tokens (axis 1) of unknown number; packed texts have one axis of tokens."""
    from jax import export

    if s.cell.kind == "packed":
        if axis == 0:
            return  # the number of texts is static
        axis = 0
    (size,) = export.symbolic_shape("n")

    def unknown(x):
        return (*x.shape[:axis], size, *x.shape[axis + 1 :])

    def shapes(a):
        of_g = unknown if axis == 0 and s.cell.kind != "packed" else None
        return [unknown, unknown, None, of_g, *[unknown] * (len(a) - 4)]

    before = jaxtyping.config.jaxtyping_disable  # its check of shapes that broadcast takes no symbolic size
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        _exported(s, shapes)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


TRANSFORMS["export, symbolic B"] = functools.partial(_export_symbolic, axis=0)
TRANSFORMS["export, symbolic T or N"] = functools.partial(_export_symbolic, axis=1)


@transform("donation")
def _donation(s):
    a = tuple(jnp.array(x) for x in s.arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")  # scores and p: no result has theirs
        got = jax.jit(s.gradients, donate_argnums=(0, 1))(*a)
    agree(got, s.want())


@transform("x64")
def _x64(s):
    with float64():
        narrow = Setting(s.cell, np.float32)
        assert jax.jit(narrow.pool)(*narrow.arguments).dtype == jnp.float32
        wide = Setting(s.cell, np.float64)
        got = jax.jit(wide.gradients)(*wide.arguments)
        assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(got))
        agree(got, wide.want(), SECOND_ORDER)


@transform("debug_nans")
def _debug_nans(s):
    a = tuple(jnp.where(jnp.isnan(x), 1, x) for x in s.arguments)  # JAX itself refuses to move a NaN there
    with jax.debug_nans(True):
        got = jax.jit(s.gradients)(*a)
    agree(got, s.want())


@transform("disable_jit")
def _disable_jit(s):
    with jax.disable_jit():
        got = s.gradients(*s.arguments)
    agree(got, s.want())


NAMES_THE_WAY = {
    "pallas": "cannot run here",
    "packed reference": "one row a text",
    "tokens reference": "whole texts on one device",
    "forward": "xla_jvp",
    # Raised by JAX after pool has returned, so that the sentence is JAX's.
    "jvp": "forward-mode autodiff",
    "linearize": "forward-mode autodiff",
}


def refusal(cell: Cell) -> str | None:
    """What the sentence says where a cell is refused; None where it runs."""
    if cell.implementation == "pallas":
        return NAMES_THE_WAY["pallas"]
    if cell.kind == "packed" and cell.implementation == "reference":
        return NAMES_THE_WAY["packed reference"]
    if cell.transform == "shard_map over tokens" and cell.implementation == "reference":
        return NAMES_THE_WAY["tokens reference"]
    if cell.transform in FORWARD and cell.implementation == "xla":
        return NAMES_THE_WAY.get(cell.transform, NAMES_THE_WAY["forward"])
    return None


def run(cell: Cell) -> str:
    """Run a cell: "runs", or "refuses"; anything else raises."""
    sentence = refusal(cell)
    skipped = cell.kind == "packed" and cell.transform in ("shard_map over rows", "pmap", "export, symbolic B")
    try:
        TRANSFORMS[cell.transform](Setting(cell))
    except (TypeError, NotImplementedError) as error:
        if sentence is None or sentence not in str(error):
            raise
        return "refuses" if "\n" not in str(error) else "refuses at length"
    assert sentence is None or skipped or cell.transform in OF_A_GRADIENT, f"{cell} should refuse"
    return "does not exist" if skipped else "runs"


def cells() -> list[Cell]:
    """The whole table."""
    return [Cell(t, i, s, k) for t in TRANSFORMS for i in IMPLEMENTATIONS for s in SIZES for k in KINDS]


def main() -> int:
    """The command: every cell, one line for each failure, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cells whose name holds this word")
    chosen = [cell for cell in cells() if parser.parse_args().only in str(cell)]
    counts = collections.defaultdict(collections.Counter)
    for cell in chosen:
        try:
            outcome = run(cell)
        except Exception as error:
            outcome = "fails"
            print(f"{cell}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr, flush=True)
        counts[cell.transform, cell.implementation][outcome] += 1
    for (name, implementation), outcomes in counts.items():
        print(f"{name:28} {implementation:10} {', '.join(f'{n} {k}' for k, n in outcomes.items())}")
    return int(any("fails" in outcomes for outcomes in counts.values()))


if __name__ == "__main__":
    from tests import conftest as conftest  # eight host devices

    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
