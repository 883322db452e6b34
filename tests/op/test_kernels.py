"""The Pallas kernels, interpreted on the host: the shared cases, the table of N1 (N10), ragged rows, transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, PartitionSpec

import lnpool
from lnpool._pallas import compat, online, rule
from tests.op import table
from tests.op.cases import BOUNDED, CASES, FIXED, LOG, Case, arrays
from tests.op.running import float64, value_and_gradients
from tests.op.test_conformance import call, expected
from tests.op.test_table import check, value_units
from tests.op.tolerances import CONFORMANCE, SAME_FORMULA, SCALED_ERROR, assert_agrees, value_bound

interpreted = functools.partial(compat.target, interpret=True)
BOTH = pytest.mark.parametrize("platform", ["tpu", "gpu"])

KERNEL = "pallas_call"  # the primitive
BY_NAME = {case.name: case for case in CASES}
CHOSEN = [  # each one for something that no other covers: interpreted kernels take seconds to compile
    *(
        BY_NAME[name]
        for name in (
            *("one_token", "p_per_head", "mask_all", "mask_nan_heads", "zeros_masked", "log_p_feature"),
            *("bounded_fixed_attention", "bfloat16_tanh"),
            *(f"limit_{limit}_p_feature" for limit in lnpool.SCALE_LIMITS),
        )
    ),
    # longer than a block, which a masked row has from 65 tokens on, and more features than a block
    Case("blocks", batch=(2,), tokens=331, features=5, mask="some"),
    Case("blocks_row", batch=(2,), tokens=200, features=300, mask="row", states="log", options=BOUNDED),
    Case("blocks_wide", batch=(2,), tokens=70, features=640, heads=5, p="head", mask="nan", states="log", options=LOG),
    Case("blocks_bfloat16", batch=(2,), tokens=150, features=40, p=3.0, mask="some", dtype="bfloat16", options=FIXED),
]


# The formulas are shared: what a GPU does differently is how it loads, splits rows and stores.
ON_GPU = ("one_token", "log_p_feature", "bfloat16_tanh", "blocks", "blocks_row", "blocks_wide")
RUNS = [*(("tpu", case) for case in CHOSEN), *(("gpu", case) for case in CHOSEN if case.name in ON_GPU)]


@pytest.mark.sampled(24)
@pytest.mark.parametrize(("platform", "case"), RUNS, ids=lambda x: getattr(x, "name", x))
def test_against_reference(platform, case):
    a = arrays(case)
    with interpreted(platform):
        alone, results = call(case, a, "pallas")
    assert alone.dtype == results[0].dtype == a.states.dtype
    assert alone.shape == (*case.batch, case.features)
    want_alone, want = expected(case)
    agreement = CONFORMANCE[jnp.dtype(case.dtype)]
    assert_agrees(alone, want_alone, agreement, "value")
    for name, got, expect in zip(("value under vjp", "dstates", "dscores", "dp"), results, want, strict=True):
        if name == "dstates" and case.states == "zeros":
            got, expect = (np.where(a.states == 0, 0, x) for x in (got, expect))
        if got is not None:
            assert_agrees(got, expect, CONFORMANCE[jnp.dtype("float32")] if name == "dp" else agreement, name)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("group", "log_bound"), [("linear", None), ("fixed", None), ("free_log", None), ("log", 1.0)])
def test_n10_table(group, log_bound):
    """The marks of N1 for every exponent, on either side of where the kernels hand over to the exact form."""
    with interpreted("tpu"):
        errors = list(table.run_scalar(group, "pallas", np.float32, log_bound))
    check(errors, value_units, lambda e: value_bound(e.log_ratio), SCALED_ERROR)


# --- races, uninitialised memory, repeats ---------------------------------------------------------------------------


def problem(batch, tokens, features, heads=0, fill=None, seed=0):
    """States, scores, p, mask, cotangent; with ``fill`` ragged rows of uniform length, NaN at padding."""
    rng = np.random.default_rng(seed)
    states = np.float32(np.abs(rng.standard_normal((batch, tokens, features))) + 0.05)
    scores = np.float32(rng.standard_normal((batch, tokens, *([heads] if heads else []))))
    mask = None
    if fill is not None:
        mask = np.arange(tokens) < rng.integers(0, int(2 * fill * tokens) + 1, batch)[:, None]
        states = np.where(mask[..., None], states, np.nan)
    g = np.float32(rng.choice([-1.0, 1.0], (batch, features)) * rng.uniform(0.5, 2.0, (batch, features)))
    return states, scores, np.float32(2.5), mask, g


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="jax 0.7 cannot trace its TPU interpreter under lax.cond")
def test_no_race_and_no_uninitialised_memory():
    """The TPU interpreter of JAX tracks every access, and fills memory with NaN before use."""
    states, scores, p, mask, g = problem(1, 70, 6, heads=2, fill=0.5)
    strict = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
    run = functools.partial(value_and_gradients, states, scores, p, g, mask=mask)
    with compat.target("tpu", strict):
        got = jax.jit(lambda: run(implementation="pallas"))()
    want = jax.jit(lambda: run(implementation="xla"))()
    for name, x, y in zip(("r", "dstates", "dscores", "dp"), got, want, strict=True):
        assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")], name)


@pytest.mark.sampled(2)
@BOTH
def test_repeats_bit_for_bit_and_ignores_padding(platform):
    states, scores, p, mask, g = problem(3, 150, 40, fill=0.4)

    def run(states, scores):
        return value_and_gradients(states, scores, p, g, mask=mask, implementation="pallas")

    with interpreted(platform):
        run = jax.jit(run)
        first, second = run(states, scores), run(states, scores)
        other = run(np.where(mask[..., None], states, -7.0), np.where(mask, scores, np.inf))
    for x, y, z in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)
        assert np.isfinite(x).all()


def test_every_block_of_a_copy_arrives():
    """Closed reports say that interpretation has dropped blocks: every other test here rests on this one."""
    x = np.arange(5 * 20 * 256, dtype=np.float32).reshape(5, 20, 256)

    def copy(x_ref, out_ref):
        out_ref[...] = x_ref[...]

    spec = pl.BlockSpec((1, 8, 128), lambda b, t, d: (b, t, d))
    out = pl.pallas_call(
        copy,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(5, 3, 2),
        in_specs=[spec],
        out_specs=spec,
        interpret=True,
    )(x)
    np.testing.assert_array_equal(out, x)


# --- what chooses the kernels ---------------------------------------------------------------------------------------


def test_a_machine_without_kernels_says_why():
    states, scores, p, *_ = problem(2, 3, 4)
    reason = lnpool.implementations()["pallas"]
    if reason is not None:
        with pytest.raises(NotImplementedError, match="cannot run here: the Pallas kernels"):
            lnpool.pool(states, scores, p, implementation="pallas")


def test_a_jax_without_the_triton_lowering_says_so(monkeypatch):
    monkeypatch.setattr(compat, "triton", None)
    with interpreted("gpu"):
        assert "need the Triton lowering, which JAX" in lnpool.implementations()["pallas"]
    with interpreted("tpu"):
        assert lnpool.implementations()["pallas"] is None


def test_inputs_that_no_kernel_takes_are_refused():
    states, _, p, *_ = problem(2, 3, 34)
    with interpreted("tpu"):
        with pytest.raises(NotImplementedError, match="float32 and bfloat16 states, not float16"):
            lnpool.pool(states.astype(np.float16), None, p, implementation="pallas")
        with pytest.raises(NotImplementedError, match="at most 16 heads, not 17"):
            lnpool.pool(states, np.zeros((2, 3, 17), np.float32), p, implementation="pallas")
        wide = jax.ShapeDtypeStruct((1, 8, 10**6 + 1), np.float32)
        with pytest.raises(NotImplementedError, match="does not fit into VMEM"):
            jax.eval_shape(lambda states: lnpool.pool(states, None, p, implementation="pallas"), wide)
    with interpreted("gpu"):
        with pytest.raises(NotImplementedError, match="GPU kernels take float32 and bfloat16 states, not float16"):
            lnpool.pool(states.astype(np.float16), None, p, implementation="pallas")
        long = jax.ShapeDtypeStruct((2**10, 10**7, 2048), np.float32)
        with pytest.raises(NotImplementedError, match="at most 2147483646 blocks of states"):
            jax.eval_shape(lambda states: lnpool.pool(states, None, p, implementation="pallas"), long)
        assert lnpool.pool(states, None, p).dtype == states.dtype  # None: the portable form, whatever the kernels take


@pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="jax 0.7 cannot interpret 32-bit code among 64-bit code")
def test_kernels_with_float64_enabled():
    """float32 states meet no float64 constant; float64 scores are refused, never rounded."""
    states, scores, p, *_ = problem(2, 9, 4)
    want = lnpool.pool(states, scores, p)
    with interpreted("tpu"), float64():
        got = lnpool.pool(states, scores, p, implementation="pallas")
        assert got.dtype == jnp.float32
        with pytest.raises(NotImplementedError, match="compute in float32, not in float64"):
            lnpool.pool(states, scores.astype(np.float64), p, implementation="pallas")
    assert_agrees(got, want, SAME_FORMULA)


@BOTH
def test_the_kernels_run(platform):
    """Tests that compare results would pass without them too."""
    states, scores, p, _, g = problem(2, 9, 4)

    def run(states, scores, p):
        return value_and_gradients(states, scores, p, g, implementation="pallas")

    with interpreted(platform):
        found = [eqn for eqn in equations(jax.make_jaxpr(run)(states, scores, p).jaxpr) if eqn.primitive.name == KERNEL]
    assert len(found) == 2


# --- transforms -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_vmap_makes_a_bigger_batch():
    """Masks, scores and states of another axis, and an exponent each; not one kernel launch more, and no loop."""
    problems = [problem(2, 70, 6, fill=0.4, seed=seed) for seed in range(3)]
    states, scores, _, mask, g = (np.stack(x) for x in zip(*problems, strict=True))
    p = np.float32([1.5, 2.0, 3.0])

    def one(states, scores, p, mask, g):
        return value_and_gradients(states, scores, p, g, mask=mask, implementation="pallas")

    with interpreted("tpu"):
        mapped = jax.jit(jax.vmap(one))
        got = mapped(states, scores, p, mask, g)
        sizes = [
            eqn.invars[1].aval.size
            for eqn in equations(jax.make_jaxpr(jax.vmap(one))(states, scores, p, mask, g).jaxpr)
            if eqn.primitive.name == KERNEL
        ]
    assert sizes == [6 * 70 * 6] * 2
    for i in range(3):
        want = value_and_gradients(states[i], scores[i], p[i], g[i], mask=mask[i], implementation="xla")
        for x, y in zip(got, want, strict=True):
            assert_agrees(x[i], y, CONFORMANCE[jnp.dtype("float32")])


def equations(jaxpr):
    """Every equation, those of inner functions included but for the bodies of kernels."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.primitive.name != KERNEL:
            for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


@pytest.mark.slow
def test_remat_and_scan():
    states, scores, p, mask, g = problem(2, 40, 6, fill=0.4)

    def loss(p, implementation):
        pool = functools.partial(lnpool.pool, mask=mask, implementation=implementation)

        def step(total, weight):
            return total + jnp.vdot(weight * g, jax.checkpoint(pool)(states, scores, p)), None

        return jax.lax.scan(step, jnp.float32(0), jnp.float32([0.5, 2.0]))[0]

    with interpreted("tpu"):
        got = jax.jit(jax.value_and_grad(lambda p: loss(p, "pallas")))(p)
    want = jax.value_and_grad(lambda p: loss(p, "xla"))(p)
    for x, y in zip(got, want, strict=True):
        assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")])


@pytest.mark.slow
def test_rows_over_devices():
    """Rows split by shard_map, the exponent replicated. The interpreter of Pallas cannot check varying axes."""
    states, scores, p, mask, g = problem(4, 40, 6, fill=0.4)
    mesh, rows = Mesh(np.array(jax.devices()[:2]), ("rows",)), PartitionSpec("rows")

    def loss(states, scores, p, implementation):
        def local(states, scores, p, mask):
            return lnpool.pool(states, scores, p, mask=mask, implementation=implementation)

        specs = {"in_specs": (rows, rows, PartitionSpec(), rows), "out_specs": rows}
        return jnp.vdot(g, jax.shard_map(local, mesh=mesh, check_vma=False, **specs)(states, scores, p, mask))

    with interpreted("tpu"):
        got = jax.jit(jax.grad(functools.partial(loss, implementation="pallas"), (0, 1, 2)))(states, scores, p)
    want = value_and_gradients(states, scores, p, g, mask=mask, implementation="xla")[1:]
    for x, y in zip(got, want, strict=True):
        assert_agrees(x, y, CONFORMANCE[jnp.dtype("float32")])


def test_both_forms_agree_at_the_end_of_the_range():
    """The hand-over from the online form to the exact one shows no jump."""
    states, scores, _, mask, _ = problem(2, 40, 6, fill=0.4)
    assert online.SILENT < -rule.LARGEST_EXPONENT
    with interpreted("tpu"):
        run = jax.jit(lambda p: lnpool.pool(states, scores, p, mask=mask, implementation="pallas"))
        end = np.float32(rule.LARGEST_EXPONENT)
        assert_agrees(run(end), run(np.nextafter(end, np.float32(1e9))), SAME_FORMULA)
        assert_agrees(run(np.float32(1)), run(np.nextafter(np.float32(1), np.float32(0))), SAME_FORMULA)


@pytest.mark.slow
def test_a_value_too_small_for_a_float_keeps_its_gradient():
    """r underflows to 0 though its states are positive: its derivative by them does not."""
    states = np.float32([[[1.2e-38, 0.0], [0.0, 0.0]]])
    scores, p, g = np.float32([[0.0, 3.0]]), np.float32(1.5), np.float32([[1.5, -0.7]])
    with interpreted("tpu"):
        got = value_and_gradients(states, scores, p, g, implementation="pallas")
    want = value_and_gradients(states, scores, p, g, implementation="xla")
    assert got[0][0, 0] == 0 != want[1][0, 0, 0]
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5)
    np.testing.assert_array_equal(got[2], want[2])
