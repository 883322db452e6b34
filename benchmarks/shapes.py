"""Named shapes from real use, and their random inputs: the same numbers for every row, in JAX and in PyTorch."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

P = 2.5  # the exponent of every row: no integer, for which powers have short cuts
BOUND = 1.0  # of |log h|
FILLS = ("dense", "ragged")
_MAX_HEADS = 8


class Shape(NamedTuple):
    """Texts in a batch, tokens in a text, features of a token."""

    batch: int
    tokens: int
    features: int

    @property
    def heads(self) -> int:
        """As many heads as divide the features, at most 8."""
        return max(heads for heads in range(1, _MAX_HEADS + 1) if self.features % heads == 0)

    @property
    def bytes(self) -> int:
        """Size of the states in float32."""
        return 4 * self.batch * self.tokens * self.features


SHAPES = {
    "sentence": Shape(256, 32, 300),
    "document": Shape(64, 512, 300),
    "small": Shape(64, 256, 300),
    "long": Shape(32, 2048, 512),
    "transformer": Shape(32, 512, 768),
    "very-long": Shape(4, 32768, 256),
    "tiny": Shape(4, 16, 24),
}
DEFAULT_SHAPES = tuple(name for name in SHAPES if name != "tiny")  # tiny only tries the machinery


class Arrays(NamedTuple):
    """The inputs of one shape and fill. The three forms of the states stand for the same h."""

    states: dict[str, np.ndarray]  # by form: "log", "linear", "raw" (h = exp(tanh x)), "bf16" (log)
    scores: dict[str, np.ndarray]  # by exponent: [B T], or [B T H] for one per head
    p: dict[str, np.ndarray]  # by exponent: "scalar", "head", "feature"
    mask: np.ndarray | None  # [B T], True = real token; None when dense
    cotangent: np.ndarray  # [B D], of the pooled states


def draw(shape: Shape, fill: str) -> Arrays:
    """Draw the inputs; ragged texts have a quarter of the tokens on average, at the start of their row."""
    batch, tokens, features = shape
    rng = np.random.default_rng(0)

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, dtype=np.float32)

    raw = normal(batch, tokens, features)
    log = np.tanh(raw)
    states = {"log": log, "linear": np.exp(log), "raw": raw, "bf16": log.astype(jnp.bfloat16)}
    flat, by_head = normal(batch, tokens), normal(batch, tokens, shape.heads)
    lengths = rng.integers(1, tokens // 2, batch, endpoint=True)
    mask = np.arange(tokens) < lengths[:, None] if fill == "ragged" else None
    p: dict[str, np.ndarray] = {
        "scalar": np.array(P, np.float32),
        "head": np.full(shape.heads, P, np.float32),
        "feature": np.full(features, P, np.float32),
    }
    scores = {"scalar": flat, "feature": flat, "head": by_head}
    return Arrays(states, scores, p, mask, normal(batch, features))
