"""BERT's encoder in NumPy and float64, written from Devlin et al. (2019): what the encoder is compared with."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

EPSILON = 1e-12


def states(arrays: Mapping[str, np.ndarray], numbers: Sequence[int], layers: int, heads: int) -> np.ndarray:
    """The states [T D] of one text after `layers` layers, from arrays by the names of BERT's own file."""
    w = {name: np.float64(array) for name, array in arrays.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    places = w["embeddings.position_embeddings.weight"][: len(numbers)]
    segment = w["embeddings.token_type_embeddings.weight"][0]
    x = norm(w["embeddings.word_embeddings.weight"][list(numbers)] + segment + places, "embeddings.LayerNorm")
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        query, key, value = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        read = []
        for q, k, v in zip(*(np.split(part, heads, axis=-1) for part in (query, key, value)), strict=True):
            scores = q @ k.T / np.sqrt(q.shape[-1])
            read.append(special.softmax(scores, axis=-1) @ v)
        attended = linear(np.concatenate(read, axis=-1), f"{name}.attention.output.dense")
        x = norm(x + attended, f"{name}.attention.output.LayerNorm")
        wide = linear(x, f"{name}.intermediate.dense")
        gelu = wide * (1 + special.erf(wide / np.sqrt(2))) / 2
        x = norm(x + linear(gelu, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x
