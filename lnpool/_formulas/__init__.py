"""The mathematics, as pure functions of arrays in the notation of docs/math.md; used by XLA and Pallas alike."""
