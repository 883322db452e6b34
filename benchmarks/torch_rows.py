"""What a user of PyTorch would pick instead, written from the formulas; every row is skipped when torch is missing."""

import importlib.util
from collections.abc import Callable
from typing import Any

from benchmarks.rows import Row, prepare
from benchmarks.shapes import Arrays

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None

MISSING = 'PyTorch is not installed, so its rows are left out: python -m pip install -e ".[bench]"'
NOT_HERE = "The rows of PyTorch are timed on a CPU only: its device times are not in the trace of JAX."

_EPSILON = 1e-6
_SIMPOOL_EXPONENT = 2.0
_LARGEST = 100.0


def log_sum_exp(states: Any, scores: Any, p: Any, mask: Any) -> Any:
    """Pool log states by the same op, as log-sum-exp."""
    z = _masked(scores, mask)[..., None]
    return ((torch.logsumexp(p * (states + z), 1) - torch.logsumexp(p * z, 1)) / p).exp()


def gem(states: Any, scores: Any, p: Any, mask: Any) -> Any:
    """Pool linear states by the same op, as generalised-mean pooling does it: clamp, power, weighted sum, root."""
    v = torch.softmax(_masked(p * scores, mask), 1)
    return torch.einsum("bt,btd->bd", v, states.clamp(min=_EPSILON).pow(p)).pow(1 / p)


def simpool(states: Any, scores: Any, p: Any, mask: Any) -> Any:
    """Pool as SimPool does (Psomas et al., ICCV 2023): a fixed exponent of the states above their least value."""
    powers = (states - states.min() + _EPSILON).pow(_SIMPOOL_EXPONENT)
    return torch.einsum("bt,btd->bd", torch.softmax(scores, 1), powers).pow(1 / _SIMPOOL_EXPONENT)


def power_mean(rows: int, states: Any, scores: Any, p: Any, index: Any) -> Any:
    """Pool as graph libraries do: a learnable power mean of packed rows by scattered addition, without attention."""
    powers = states.clamp(0, _LARGEST).pow(p)
    sums = powers.new_zeros(rows, states.shape[1]).index_add(0, index, powers)
    counts = torch.bincount(index, minlength=rows)[:, None]
    return (sums / counts).clamp(0, _LARGEST).pow(1 / p)


def _masked(scores: Any, mask: Any) -> Any:
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def tensors(row: Row, arrays: Arrays) -> tuple[Callable[..., Any], list[Any]]:
    """Return the function of a row, compiled where its name says so, and its inputs as tensors."""
    function, inputs = prepare(row, arrays)
    if row.name.endswith("-compiled"):
        function = torch.compile(function, dynamic=False, fullgraph=True)
    return function, [None if x is None else torch.tensor(x) for x in inputs]


def torch_rows() -> list[Row]:
    """Every row in PyTorch, or none."""
    if torch is None:
        return []
    return [
        Row("torch:logsumexp", "PyTorch eager, log-sum-exp on log states", log_sum_exp),
        Row("torch:logsumexp-compiled", "torch.compile, log-sum-exp on log states", log_sum_exp),
        Row("torch:gem", "PyTorch eager, powers like GeM", gem, states="linear"),
        Row("torch:gem-compiled", "torch.compile, powers like GeM", gem, states="linear"),
        Row(
            "torch:simpool",
            f"PyTorch eager, like SimPool: exponent fixed at {_SIMPOOL_EXPONENT:g}, no mask",
            simpool,
            states="linear",
            masks=False,
        ),
        Row(
            "torch:power-mean",
            "PyTorch eager, like the power mean of PyG: packed rows, no attention",
            power_mean,
            states="linear",
            skips_padding=True,
            packed=True,
        ),
    ]
