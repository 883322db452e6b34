"""Long short-term memory from left to right, after Hochreiter and Schmidhuber (1997)."""

from experiments.layers.recurrence import LongShortTerm


class LSTM(LongShortTerm):
    """One state a token, from all words before it."""

    directions = 1
