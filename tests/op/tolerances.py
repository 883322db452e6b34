"""Every tolerance of the op's tests. A mark named N. or T. is one of the numerics contract and must not be loosened."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

# --- the exact table: N1, N2, N3 -------------------------------------------------------------------------------------
EXTREME_FAMILIES = ("decades60", "outlier1e20", "spread1e4")
SCALED_ERROR = {False: 64.0, True: 300.0}  # N1, by "extreme": E for dz, dp and dstates
FLOAT64_VALUE = {False: 1e-13, True: 1e-11}  # N2: relative error of the value, by "extreme"
FLOAT64_SCALED_ERROR = {False: 1024.0, True: 1024.0}  # ours: E in float64, where N2 names a mark for the value only
LOW_PRECISION_ULPS = 1.0  # N3: ulps of the dtype of the states or scores


def value_bound(log_ratio):
    """N1: relative error of the value in units of rounding; log_ratio = |log(r / h_ref)|."""
    return 16 + 8 * log_ratio


def unit(dtype) -> float:
    """Half an ulp of 1."""
    return float(jnp.finfo(dtype).eps) / 2


U32 = unit(np.float32)

# --- rows in closed form: N4, N5, N9 ---------------------------------------------------------------------------------
CLOSED_FORM = 8 * U32  # a softmax weight or a quotient in float32, a few roundings
CONTINUITY = 16 * U32  # N5
BESIDE_ZERO = 64 * U32  # a weight of e^-30 is known to 30 roundings, and all else follows from it
BRANCH_JUMP = 64 * U32  # N5, times |log(r / h_ref)| + 1

# --- properties: N6 (measured in the contract's 1.7; the factor is room for other rows) --------------------------
BOUND = 1e-5  # N6: bounds for p >= 1


def euler_bound(p):
    """|sum h dh - r| / r: a weight is the exponential of p times a logarithm."""
    return np.where(p < 1, 2e-3, np.where(p < 8, 2e-5, 1e-4))


PERMUTATION = 5e-5
LENGTH = PERMUTATION  # the same tokens in a longer row: XLA chooses another order of summation
SCORE_SUM = 5e-5  # |sum dz| / r
MINIMUM_ULPS = 32  # r >= min h

# --- the random search: E of gradients as N1, in second order ours; the value has its mark in its noise ---------------
SEARCH_SECOND = {False: 256.0, True: 2048.0}
SEARCH_MARKS = {
    "r": {False: 1.0, True: 1.0},
    **dict.fromkeys(("dstates", "dz", "dp", "jvp"), SCALED_ERROR),
    **dict.fromkeys(("hstates", "hz", "hp"), SEARCH_SECOND),
}

# --- agreement with the float64 reference ----------------------------------------------------------------------------


class Agreement(NamedTuple):
    """|got - want| <= relative * |want| + of_scale * max |want|."""

    relative: float
    of_scale: float


CONFORMANCE = {
    jnp.dtype("float32"): Agreement(2e-5, 5e-6),
    jnp.dtype("bfloat16"): Agreement(2**-7, 2**-9),
    jnp.dtype("float16"): Agreement(2**-10, 2**-12),
    jnp.dtype("float64"): Agreement(1e-11, 1e-13),
}
SAME_FORMULA = Agreement(1e-6, 1e-6)  # one implementation, two ways to call it
SECOND_ORDER = Agreement(1e-8, 1e-8)  # float64
TRANSFORMED = Agreement(2e-5, 1e-5)  # float32 against the reference in float32, whose own error is about half of it

GRADCHECK = {"atol": 1e-5, "rtol": 1e-3, "eps": 1e-6}  # N8, as torch.autograd.gradcheck

TEMPORARY_SHARE = 0.05  # of the bytes of the states
PACKED_SHARE = 0.5  # the same for packed texts: rows of 16 of the features, and what is computed of them


def assert_agrees(got, want, agreement: Agreement, err_msg="") -> None:
    """Compare on the host: on some CPU versions of jaxlib a device-side max drops NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    scale = float(np.max(np.abs(want), initial=0.0))
    np.testing.assert_allclose(got, want, rtol=agreement.relative, atol=agreement.of_scale * scale, err_msg=err_msg)
