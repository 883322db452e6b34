"""One table from the name of an implementation to what runs it, and the order in which None tries them. No maths."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from jax import Array

from lnpool import _reference, _xla
from lnpool._types import Call, Implementation, Inputs

Saved: TypeAlias = Any  # a pytree of arrays: what a forward pass leaves for its own derivatives


class ReverseRule(NamedTuple):
    """Runs as a custom_vjp: the value alone, the value with what the backward pass needs, and that pass."""

    value: Callable[[Call, Inputs], Array]
    forward: Callable[[Call, Inputs], tuple[Array, Saved]]
    backward: Callable[[Call, Inputs, Saved, Array], Inputs]


class ForwardRule(NamedTuple):
    """Runs as a custom_jvp: the value alone, the value with what the tangent needs, and the tangent."""

    value: Callable[[Call, Inputs], Array]
    forward: Callable[[Call, Inputs], tuple[Array, Saved]]
    tangent: Callable[[Call, Inputs, Saved, Inputs], Array]


class Backend(NamedTuple):
    """One implementation: how it runs, why this machine cannot run it, and why not these inputs (None where it can)."""

    run: ReverseRule | ForwardRule | Callable[[Call, Inputs], Array]
    why_not: Callable[[], str | None] = lambda: None
    unsupported: Callable[[Call, Inputs], str | None] = lambda call, inputs: None


def _whole_texts(call: Call) -> str | None:
    if call.axis_name is not None:
        return 'it wants whole texts on one device: leave axis_name out, or use implementation="xla".'
    return None


def _one_row_a_text(inputs: Inputs) -> str | None:
    if inputs.packing is not None:
        return 'it wants one row a text: use pool, or implementation="xla".'
    return None


def _kernels() -> ModuleType:
    """The kernels, imported when first asked for: others need not wait for Pallas, nor have what it imports."""
    return importlib.import_module("lnpool._pallas")


def _kernels_why_not() -> str | None:
    try:
        reason: str | None = _kernels().why_not()
    except ImportError as error:
        reason = f"Pallas cannot be imported here: {error}."
    return reason


_KERNELS = Backend(
    ReverseRule(
        lambda *args: _kernels().value(*args),
        lambda *args: _kernels().forward(*args),
        lambda *args: _kernels().backward(*args),
    ),
    _kernels_why_not,
    lambda call, inputs: _whole_texts(call) or _kernels().unsupported(call, inputs),
)

BACKENDS: dict[Implementation, Backend] = {
    "xla": Backend(ReverseRule(_xla.value, _xla.forward, _xla.backward)),
    "xla_jvp": Backend(ForwardRule(_xla.value, _xla.forward, _xla.tangent)),
    "pallas": _KERNELS,
    "reference": Backend(
        _reference.pool, unsupported=lambda call, inputs: _whole_texts(call) or _one_row_a_text(inputs)
    ),
}

# What implementation=None tries, best first; the last one runs everywhere. The kernels are not among them until they
# have been timed: none has run on a device, and compiled for TPU, XLA reads dense states as often as they do
# (tests/op/test_kernel_compile.py).
PREFERENCE: tuple[Implementation, ...] = ("xla",)


def implementations() -> dict[Implementation, str | None]:
    """Every implementation by name, with the reason why this machine cannot run it, or None where it can.

    Example:
        >>> import lnpool
        >>> [name for name, reason in lnpool.implementations().items() if reason is None and name != "pallas"]
        ['xla', 'xla_jvp', 'reference']
    """
    return {name: backend.why_not() for name, backend in BACKENDS.items()}


def best() -> Implementation:
    """The first implementation in order of preference that runs on this machine."""
    return next(name for name in PREFERENCE if BACKENDS[name].why_not() is None)
