"""Gated recurrent units from left to right, after Cho et al. (EMNLP 2014)."""

from experiments.layers.recurrence import GatedRecurrent


class GRU(GatedRecurrent):
    """One state a token, from all words before it."""

    directions = 1
