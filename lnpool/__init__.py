"""lnpool: attentive pooling with learnable norms, exact at every exponent, one pass over memory.

``lnpool.pool`` is the function; ``lnpool.nn`` (needs flax) wraps it as a module.
"""

from lnpool import exponent as exponent
from lnpool._dispatch import implementations as implementations
from lnpool._op import pool as pool
from lnpool._op import pool_packed as pool_packed
from lnpool._scale import SCALE_LIMITS as SCALE_LIMITS
from lnpool._views import attention_weights as attention_weights
from lnpool._views import contributions as contributions
from lnpool._views import scale_limit as scale_limit
