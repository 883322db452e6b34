"""Which of ten kinds of thing a dictionary definition defines: act, animal, artifact, attribute, ..., substance."""

from collections.abc import Iterable

from experiments.data import wordnet
from experiments.data.text import Example
from experiments.data.text_task import TextOptions, TextTask


class WordNet(TextTask):
    """Lexicographer classes of WordNet noun glosses."""

    @classmethod
    def examples(cls, options: TextOptions) -> Iterable[Example]:
        """Return the embedded glosses."""
        return wordnet.read()
