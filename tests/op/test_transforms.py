"""T1: every transform that is promised. T2: forward mode is refused with a name, or works, never wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lnpool
from tests.op.running import REVERSE, float64, random_cotangent
from tests.op.tolerances import SAME_FORMULA, SECOND_ORDER, assert_agrees

implementations = pytest.mark.parametrize("implementation", REVERSE)
B, T, D, H = 8, 6, 4, 2
G = np.asarray(random_cotangent((B, D)))
ARGUMENTS = (0, 1, 2)
BOUNDED = {"log_states": True, "log_bound": 4.0}
FORMS = {"linear": {}, "bounded": BOUNDED}
forms = pytest.mark.parametrize("form", FORMS)


def arguments(form="linear", dtype=np.float32):
    rng = np.random.default_rng(11)
    states = rng.uniform(0.1, 2.0, (B, T, D))
    states = np.log(states) if form == "bounded" else states
    return tuple(jnp.asarray(x, dtype) for x in (states, rng.standard_normal((B, T)), np.asarray(2.3)))


def loss_of(implementation, form="linear"):
    """(states, scores, p) -> weighted sum of the pooled states; any batch that divides the weights."""

    def loss(states, scores, p, weights=G):
        pooled = lnpool.pool(states, scores, p, implementation=implementation, **FORMS[form])
        return jnp.sum(jnp.asarray(weights, pooled.dtype) * pooled)

    return loss


def gradients(implementation, form="linear"):
    return jax.grad(loss_of(implementation, form), ARGUMENTS)


def agree(got, want, agreement=SAME_FORMULA):
    jax.tree.map(lambda x, y: assert_agrees(x, y, agreement), got, want)


@implementations
@forms
def test_jit(form, implementation):
    f, a = gradients(implementation, form), arguments(form)
    agree(jax.jit(f)(*a), f(*a))


@implementations
@forms
@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)], ids=str)
def test_vmap_over_each_argument(axes, form, implementation):
    states, scores, p = arguments(form)
    stacks = (states, scores, jnp.linspace(0.5, 4.0, B))
    whole = (states[0], scores[0], p)
    chosen = [stack if axis == 0 else one for axis, stack, one in zip(axes, stacks, whole, strict=True)]

    def one(*a):
        return jax.value_and_grad(lambda s, z, e: loss_of(implementation, form)(s, z, e, G[0]), ARGUMENTS)(*a)

    got = jax.jit(jax.vmap(one, axes))(*chosen)
    rows = [one(*(x[i] if axis == 0 else x for x, axis in zip(chosen, axes, strict=True))) for i in range(B)]
    agree(got, jax.tree.map(lambda *x: jnp.stack(x), *rows))


@implementations
@forms
def test_grad_of_vmap_with_shared_p(form, implementation):
    def loss(states, scores, p):
        pool = lambda s, z: lnpool.pool(s, z, p, implementation=implementation, **FORMS[form])  # noqa: E731
        return jnp.sum(G * jax.vmap(pool)(states, scores))

    a = arguments(form)
    agree(jax.grad(loss, ARGUMENTS)(*a), gradients(implementation, form)(*a))


@implementations
@forms
def test_scan_and_remat(form, implementation):
    states, scores, p = arguments(form)

    def looped(states, scores, p):
        def step(total, row):
            s, z, g = row
            return total + jnp.sum(g * lnpool.pool(s, z, p, implementation=implementation, **FORMS[form])), None

        return jax.lax.scan(step, jnp.zeros(()), (states, scores, jnp.asarray(G)))[0]

    want = gradients(implementation, form)(states, scores, p)
    agree(jax.jit(jax.grad(looped, ARGUMENTS))(states, scores, p), want)
    agree(jax.grad(jax.checkpoint(loss_of(implementation, form)), ARGUMENTS)(states, scores, p), want)


def mesh_of(devices=4) -> Mesh:
    assert len(jax.devices()) >= devices, "conftest asks for eight host devices"
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


@implementations
@forms
def test_jit_with_sharded_inputs(form, implementation):
    states, scores, p = arguments(form)
    split = NamedSharding(mesh_of(), PartitionSpec("data"))
    sharded = (jax.device_put(states, split), jax.device_put(scores, split), p)
    agree(jax.jit(gradients(implementation, form))(*sharded), gradients(implementation, form)(states, scores, p))


@implementations
@forms
def test_pmap(form, implementation):
    states, scores, p = arguments(form)
    cut = lambda x: x.reshape(4, 2, *x.shape[1:])  # noqa: E731
    f = jax.pmap(jax.grad(loss_of(implementation, form), ARGUMENTS), in_axes=(0, 0, None, 0))
    dstates, dscores, dp = f(cut(states), cut(scores), p, cut(jnp.asarray(G)))
    got = (dstates.reshape(states.shape), dscores.reshape(scores.shape), np.asarray(dp).sum())
    agree(got, gradients(implementation, form)(states, scores, p))


@implementations
@forms
@pytest.mark.parametrize("check", [True, False])
def test_shard_map_with_replicated_p(check, form, implementation):
    states, scores, p = arguments(form)
    split, same = PartitionSpec("data"), PartitionSpec()
    pool = jax.shard_map(
        lambda s, z, e: lnpool.pool(s, z, e, implementation=implementation, **FORMS[form]),
        mesh=mesh_of(),
        in_specs=(split, split, same),
        out_specs=split,
        check_vma=check,
    )
    outside = jax.jit(jax.grad(lambda *a: jnp.sum(G * pool(*a)), ARGUMENTS))
    want = gradients(implementation, form)(states, scores, p)
    agree(outside(states, scores, p), want)

    def inside(s, z, e, g):
        d = jax.grad(loss_of(implementation, form), ARGUMENTS)(s, z, e, g)
        return *d[:2], d[2] if check else jax.lax.psum(d[2], "data")

    specs = {"in_specs": (split, split, same, split), "out_specs": (split, split, same)}
    agree(jax.jit(jax.shard_map(inside, mesh=mesh_of(), check_vma=check, **specs))(states, scores, p, G), want)


@implementations
@pytest.mark.parametrize("form", FORMS)
def test_reverse_over_reverse(form, implementation):
    with float64():
        a = arguments(form, np.float64)
        small = (a[0][:1, :3], a[1][:1, :3], a[2])
        second = lambda name: jax.jit(jax.jacrev(jax.jacrev(pooled(name, form), ARGUMENTS), ARGUMENTS))(*small)  # noqa: E731
        agree(second(implementation), second("reference"), SECOND_ORDER)


def pooled(implementation, form="linear"):
    return lambda s, z, e: lnpool.pool(s, z, e, implementation=implementation, **FORMS[form])


@implementations
@forms
def test_export_round_trip(form, implementation):
    pytest.importorskip("flatbuffers")
    from jax import export

    a = arguments(form)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in a]
    blob = export.export(jax.jit(pooled(implementation, form)))(*shapes).serialize(vjp_order=1)
    back = export.deserialize(blob)
    agree(back.call(*a), pooled(implementation, form)(*a))
    got = jax.grad(lambda *x: jnp.sum(G * back.call(*x)), ARGUMENTS)(*a)
    agree(got, gradients(implementation, form)(*a))


FORWARD = {
    "jvp": lambda f, a: jax.jvp(f, a, a)[1],
    "linearize": lambda f, a: jax.linearize(f, *a)[1](*a),
    "jacfwd": lambda f, a: jax.jacfwd(f, ARGUMENTS)(*a),
    "hessian": lambda f, a: jax.hessian(lambda *x: jnp.sum(f(*x)), ARGUMENTS)(*a),
    "jvp of grad": lambda f, a: jax.jvp(jax.grad(lambda *x: jnp.sum(f(*x)), ARGUMENTS), a, a)[1],
    "grad of jvp": lambda f, a: jax.grad(lambda *x: jnp.sum(jax.jvp(f, x, a)[1]), ARGUMENTS)(*a),
}


@forms
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", FORWARD)
def test_t2_forward_mode_is_refused_or_right(name, jitted, form):
    """A reverse-only rule refuses, or JAX differentiates the backward pass, and then the result is right."""
    with float64():
        states, scores, p = arguments(form, np.float64)
        a = (states[:2, :3], scores[:2, :3], p)
        f = pooled("xla", form)
        try:
            got = FORWARD[name](jax.jit(f) if jitted else f, a)
        except (TypeError, NotImplementedError):
            return
        agree(got, FORWARD[name](pooled("reference", form), a), SECOND_ORDER)


@forms
@pytest.mark.parametrize("name", ["jvp", "jacfwd"])
def test_t2_refusal_names_the_way_out(name, form):
    """Where `pool` is on the stack when JAX refuses; under the caller's own jit, linearize or grad of jvp it is not."""
    with pytest.raises(TypeError, match='implementation="xla_jvp"'):
        FORWARD[name](pooled("xla", form), arguments(form))


@forms
@pytest.mark.parametrize("jitted", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", FORWARD)
def test_t2_forward_mode_works_in_xla_jvp(name, jitted, form):
    with float64():
        states, scores, p = arguments(form, np.float64)
        a = (states[:2, :3], scores[:2, :3], p)
        f = pooled("xla_jvp", form)
        got = FORWARD[name](jax.jit(f) if jitted else f, a)
        agree(got, FORWARD[name](pooled("reference", form), a), SECOND_ORDER)
