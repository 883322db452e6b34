"""Tokens split over devices: value and all gradients are those of whole rows on one device."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import lnpool
from tests.op.running import REVERSE, random_cotangent
from tests.op.tolerances import CONFORMANCE, assert_agrees

B, T, D = 2, 40, 6
ROWS, TOKENS = PartitionSpec("data"), PartitionSpec("data", "tokens")
FORMS = {"linear": {}, "tanh": {"scale_limit": "tanh"}}
ARGUMENTS = (0, 1, 2)


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("data", "tokens"))


def arguments(form):
    rng = np.random.default_rng(3)
    raw, scores = rng.standard_normal((B, T, D)), rng.standard_normal((B, T))
    states = jnp.asarray(raw if form == "tanh" else np.exp(raw), jnp.float32)
    mask = jnp.asarray(np.arange(T) < np.array([[7], [T]]))  # the first text ends on the first device
    return states, jnp.asarray(scores, jnp.float32), mask


def pooled(form, implementation, axis_name=None):
    def pool(states, scores, p, mask):
        options = {"mask": mask, "axis_name": axis_name, "implementation": implementation, **FORMS[form]}
        return lnpool.pool(states, scores, p, **options)

    return pool


def gradients(pool, mask):
    loss = lambda *a: jnp.sum(random_cotangent((B, D)) * pool(*a, mask))  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, ARGUMENTS))


@pytest.mark.sampled(17)
@pytest.mark.parametrize("implementation", REVERSE)
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("p", [2.5, 0.0, [0.5, 1.0, 2.0, 3.0, 8.0, -2.0]], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_those_of_whole_rows(form, p, check_vma, implementation):
    states, scores, mask = arguments(form)
    p = jnp.asarray(p, jnp.float32)
    sharded = jax.shard_map(
        pooled(form, implementation, "tokens"),
        mesh=mesh(),
        in_specs=(TOKENS, TOKENS, PartitionSpec(), TOKENS),
        out_specs=ROWS,
        check_vma=check_vma,
    )
    got = gradients(sharded, mask)(states, scores, p)
    want = gradients(pooled(form, implementation), mask)(states, scores, p)
    jax.tree.map(lambda x, y: assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")]), got, want)


def test_gradients_taken_inside_shard_map():
    states, scores, mask = arguments("tanh")
    g = random_cotangent((B, D))

    def inside(states, scores, p, mask, g):
        loss = lambda *a: jnp.sum(g * pooled("tanh", "xla", "tokens")(*a, mask))  # noqa: E731
        dstates, dscores, dp = jax.grad(loss, ARGUMENTS)(states, scores, p)
        return dstates, dscores, dp

    same = PartitionSpec()
    run = jax.shard_map(
        inside, mesh=mesh(), in_specs=(TOKENS, TOKENS, same, TOKENS, ROWS), out_specs=(TOKENS, TOKENS, same)
    )
    got = jax.jit(run)(states, scores, jnp.float32(2.5), mask, g)
    want = gradients(pooled("tanh", "xla"), mask)(states, scores, jnp.float32(2.5))[1]
    jax.tree.map(lambda x, y: assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")]), got, want)


LENGTHS = [20, 0, 3, 30, 11]  # eight tokens a device: texts on one device, on several, and none


CHECKS = jax.__version_info__ >= (0, 8)  # jax 0.7 cannot search sorted ids whose varying axes it checks


@pytest.mark.slow
@pytest.mark.parametrize(("p", "check_vma", "implementation"), [*itertools.product((2.5, 0.0), (True, False), REVERSE)])
def test_packed_texts_over_devices(p, check_vma, implementation):
    check_vma = check_vma and CHECKS
    ids = np.repeat([0, 1, 2, 3, 7], LENGTHS)  # the last tokens belong to no text
    rng = np.random.default_rng(5)
    states, scores = (
        jnp.asarray(rng.standard_normal((64, D)), jnp.float32),
        jnp.asarray(rng.standard_normal(64), jnp.float32),
    )
    split, same = PartitionSpec("tokens"), PartitionSpec()

    def pool(axis_name):
        def run(states, scores, p, ids):
            texts = {"segment_ids": ids, "num_segments": 4, "axis_name": axis_name}
            return lnpool.pool_packed(states, scores, p, scale_limit="tanh", implementation=implementation, **texts)

        return run

    def results(pool):
        loss = lambda *a: jnp.sum(random_cotangent((4, D)) * pool(*a, jnp.asarray(ids)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, ARGUMENTS))(states, scores, jnp.float32(p))

    mesh = Mesh(np.array(jax.devices()[:8]), ("tokens",))
    over = jax.shard_map(
        pool("tokens"), mesh=mesh, in_specs=(split, split, same, split), out_specs=same, check_vma=check_vma
    )
    jax.tree.map(
        lambda x, y: assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")]), results(over), results(pool(None))
    )


def test_packed_texts_of_each_device():
    """Texts inside of shard_map that no axis splits: every device has its own."""
    ids, rng = np.repeat([[0, 2], [0, 1]], 8, axis=1), np.random.default_rng(5)
    states = jnp.asarray(np.exp(rng.standard_normal((2, 16, D))), jnp.float32)
    rows = PartitionSpec("data")

    def pool(states, ids):
        return lnpool.pool_packed(states[0], None, 2.5, segment_ids=ids[0], num_segments=3)[None]

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    got = jax.jit(jax.shard_map(pool, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=CHECKS))(
        states, jnp.asarray(ids)
    )
    for x, row, of_row in zip(got, states, ids, strict=True):
        assert_agrees(x, pool(row[None], of_row[None])[0], CONFORMANCE[jnp.dtype("float32")])


def test_errors_name_what_is_wrong():
    states, scores, _ = arguments("tanh")
    with pytest.raises(ValueError, match="shard_map"):
        lnpool.pool(states, scores, axis_name="tokens", scale_limit="tanh")
    refused = jax.shard_map(
        pooled("tanh", "reference", "tokens"), mesh=mesh(), in_specs=(TOKENS, TOKENS, None, TOKENS), out_specs=ROWS
    )
    with pytest.raises(NotImplementedError, match="leave axis_name out"):
        refused(states, scores, 2.0, jnp.ones((B, T), bool))
