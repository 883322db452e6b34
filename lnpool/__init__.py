"""lnpool: attentive pooling with learnable norms, exact at every exponent, one pass over memory.

``lnpool.pool`` is the function; ``lnpool.nn`` (needs flax) wraps it as a module.
"""

from lnpool import exponent as exponent
from lnpool._dispatch import implementations as implementations
from lnpool._formulas.scale import SCALE_LIMITS as SCALE_LIMITS
from lnpool._inspect import attention_weights as attention_weights
from lnpool._inspect import contributions as contributions
from lnpool._inspect import scale_limit as scale_limit
from lnpool._op import pool as pool
from lnpool._op import pool_packed as pool_packed

__version__ = "0.1.0"
