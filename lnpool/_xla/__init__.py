"""The portable implementation: plain jax.numpy, fused by XLA on every platform. The fast default."""

from lnpool._xla.rule import backward as backward
from lnpool._xla.rule import forward as forward
from lnpool._xla.rule import tangent as tangent
from lnpool._xla.rule import value as value
