"""Pallas kernels: the fast forms of the pooling for p >= 1 as one pass that never fetches padded blocks.

What XLA cannot do, or not in one pass: skip the padding of ragged rows, read packed texts where they lie, and take
inputs without a known bound (linear states, free log states) by a running maximum. Every exponent outside of the
accurate range of the kernels goes to the portable implementation, chosen at run time.
"""

from lnpool._pallas.rule import backward as backward
from lnpool._pallas.rule import forward as forward
from lnpool._pallas.rule import unsupported as unsupported
from lnpool._pallas.rule import value as value
from lnpool._pallas.rule import why_not as why_not
