"""T1 and T2: the table of transforms; each cell runs and agrees with the reference, or refuses in one sentence.

Here every transform meets both implementations on both sides of the size at which programs change, with kinds of input
that take turns; ``python -m tests.op.transforms`` runs every cell of the table.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import lnpool
from tests.op import transforms
from tests.op.running import REVERSE
from tests.op.transforms import FORWARD, KINDS, ROWS, SIZES, TRANSFORMS, Cell, Setting, agree

implementations = pytest.mark.parametrize("implementation", REVERSE)


def chosen() -> list:
    """Every transform with "xla" and "xla_jvp", small and large."""
    kinds, cells = list(KINDS), []
    for i, name in enumerate(TRANSFORMS):
        for j, implementation in enumerate(REVERSE):
            for k, size in enumerate(SIZES):
                cells.append(Cell(name, implementation, size, kinds[(3 * i + 5 * j + 7 * k) % len(kinds)]))
    return cells


@pytest.mark.sampled(50)
@pytest.mark.parametrize("cell", chosen(), ids=str)
def test_cell(cell):
    assert transforms.run(cell) in ("runs", "refuses", "does not exist")


REFUSED = [
    *(Cell("jit of value_and_grad", "pallas", "small", kind) for kind in ("dense", "packed", "per head")),
    *(Cell(name, "pallas", "small", "dense") for name in sorted(FORWARD)),
    *(Cell(name, "xla", "small", "dense") for name in ("jvp", "jacfwd by p", "linearize")),
    Cell("jit", "reference", "small", "packed"),
    Cell("shard_map over tokens", "reference", "small", "dense"),
]


@pytest.mark.parametrize("cell", REFUSED, ids=str)
def test_refusal_is_one_sentence(cell):
    assert transforms.run(cell) == "refuses"


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in FORWARD])
@pytest.mark.slow
def test_reference(name):
    transforms.run(Cell(name, "reference", "small", "masked"))


@pytest.mark.sampled(2)
@implementations
@pytest.mark.parametrize("check", [True, False])
def test_gradients_inside_shard_map_with_replicated_p(check, implementation):
    s = Setting(Cell("", implementation, "small", "dense"))
    same = PartitionSpec()

    def inside(states, scores, p, g):
        loss = lambda *a: jnp.sum(g * s.pool(*a))  # noqa: E731
        *d, dp = jax.grad(loss, (0, 1, 2))(states, scores, p)
        return *d, dp if check else jax.lax.psum(dp, "data")

    specs = {"in_specs": (ROWS, ROWS, same, ROWS), "out_specs": (ROWS, ROWS, same)}
    run = jax.shard_map(inside, mesh=transforms._mesh(), check_vma=check, **specs)
    agree(jax.jit(run)(*s.arguments, s.g), s.want()[1])


@pytest.mark.sampled(2)
@implementations
def test_export_is_serialised_with_its_gradient(implementation):
    pytest.importorskip("flatbuffers")
    from jax import export

    s = Setting(Cell("", implementation, "small", "dense"))
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in s.arguments]
    back = export.deserialize(export.export(jax.jit(s.pool))(*shapes).serialize(vjp_order=1))
    agree(back.call(*s.arguments), s.want_value())
    agree(jax.grad(lambda *a: jnp.sum(s.g * back.call(*a)), (0, 1, 2))(*s.arguments), s.want()[1])


@pytest.mark.parametrize("name", ["jvp", "jacfwd"])
def test_refusal_of_forward_mode_names_the_way_out(name):
    """Where `pool` is on the stack when JAX refuses; under the caller's own jit, linearize or grad of jvp it is not."""
    states, scores, p = Setting(Cell("", "xla", "small", "dense")).arguments
    f = lambda e: lnpool.pool(states, scores, e)  # noqa: E731
    with pytest.raises(TypeError, match='implementation="xla_jvp"'):
        jax.jvp(f, (p,), (p,)) if name == "jvp" else jax.jacfwd(f)(p)


def test_a_program_of_rows_on_a_mesh_gathers_no_states():
    """The compiled program of large sharded rows holds no all-gather, forward and backward."""
    s = Setting(Cell("", "xla", "large", "dense"))
    mesh = transforms._mesh("Auto")
    a = transforms._cut_by_rows(s, mesh)
    text = jax.jit(s.gradients).lower(*a).compile().as_text()
    assert "all-gather" not in text
    assert np.prod(SIZES["large"]) >= 2**16, "above the size from which on a CPU loops"
