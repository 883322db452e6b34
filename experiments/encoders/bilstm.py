"""Long short-term memory in both directions, after Graves and Schmidhuber (2005)."""

from experiments.layers.recurrence import LongShortTerm


class BiLSTM(LongShortTerm):
    """One state a token, from all words before it and all words after it."""

    directions = 2
