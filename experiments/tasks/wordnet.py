"""Which of ten kinds of thing a dictionary definition defines: act, animal, artifact, attribute, ..., substance."""

from experiments.classification import TextClassification, TextOptions
from experiments.data import wordnet


class WordNet(TextClassification):
    """Lexicographer classes of WordNet noun glosses."""

    def __init__(self, options: TextOptions):
        super().__init__(options, wordnet.read())
