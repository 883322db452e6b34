"""One table from the name of an implementation to what runs it, and the order in which None tries them. No maths."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jax import Array

from lnpool import _reference, _xla
from lnpool._types import Call, Implementation, Inputs


Saved: TypeAlias = Any  # a pytree of arrays: what the forward pass of a backend leaves for its own derivatives


class Backend(NamedTuple):
    """How one implementation runs. ``backward`` makes it a custom_vjp, ``tangent`` a custom_jvp, neither plain autodiff.

    ``value`` is the forward pass alone, ``forward`` the one that leaves something for a derivative. ``why_not`` says
    why this machine cannot run it, None where it can.
    """

    value: Callable[[Call, Inputs], Array]
    forward: Callable[[Call, Inputs], tuple[Array, Saved]] | None = None
    backward: Callable[[Call, Inputs, Saved, Array], Inputs] | None = None
    tangent: Callable[[Call, Inputs, Saved, Inputs], Array] | None = None
    why_not: Callable[[], str | None] = lambda: None


BACKENDS: dict[Implementation, Backend] = {
    "xla": Backend(_xla.value, _xla.forward, backward=_xla.backward),
    "xla_jvp": Backend(_xla.value, _xla.forward, tangent=_xla.tangent),
    "reference": Backend(_reference.pool),
}

# What implementation=None tries, best first; the last one runs everywhere.
PREFERENCE: tuple[Implementation, ...] = ("xla",)


def implementations() -> dict[Implementation, str | None]:
    """Every implementation by name, with the reason why this machine cannot run it, or None where it can.

    Example:
        >>> import lnpool
        >>> lnpool.implementations()
        {'xla': None, 'xla_jvp': None, 'reference': None}
    """
    return {name: backend.why_not() for name, backend in BACKENDS.items()}


def best() -> Implementation:
    """The first implementation in order of preference that runs on this machine."""
    return next(name for name in PREFERENCE if BACKENDS[name].why_not() is None)
