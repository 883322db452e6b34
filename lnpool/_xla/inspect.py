"""What attends, and what each token contributes: numbers as many as tokens or states, for people to look at."""

import jax.numpy as jnp
from jax import Array

from lnpool._formulas import attention as formula
from lnpool._formulas import exact
from lnpool._formulas.safe import at_least, finite, select
from lnpool._types import Call, Inputs
from lnpool._xla.attend import attend
from lnpool._xla.forms import elements, exact_form, exponents_of_w
from lnpool._xla.texts import texts_of


def weights(call: Call, inputs: Inputs) -> Array:
    """v [B T *H 1|K], 0 at padding."""
    attention = attend(call, inputs)
    p, mask = formula.power(inputs.p, call.sharpen), inputs.tokens.mask
    z = formula.centred(select(mask, inputs.tokens.scores, 0).astype(p.dtype), attention.offset)
    return select(mask, jnp.exp(formula.log_weights(p, z, attention.log_z)), 0)


def contributions(call: Call, inputs: Inputs) -> Array:
    """w [B T *H K], the share of each token in the sum; where r = 0, the weights of the zero states that made it so."""
    p, mask, attention = finite(inputs.p), inputs.tokens.mask, attend(call, inputs)
    texts = texts_of(call, inputs, attention)
    pooled = exact_form(texts, want_slope=False)
    tokens = elements(texts, texts.tokens, pooled.reference, attention.offset, attention.log_z)
    w = jnp.exp(exponents_of_w(texts, p, tokens, pooled.y_reference) - pooled.log_w)
    of_zeros = exact.shares_of_zeros(tokens.zero, tokens.log_v, mask)
    of_zeros = of_zeros / at_least(texts.meeting.total(of_zeros), float(jnp.finfo(of_zeros.dtype).tiny))
    return select(mask, jnp.where(pooled.vanishes, of_zeros, jnp.where(tokens.zero, 0, w)), 0)
