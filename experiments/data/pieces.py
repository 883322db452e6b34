"""Word pieces of BERT (Devlin et al. 2019): greedy longest match in a fixed vocabulary, after Wu et al. (2016).

An export has a copy of this file, so it needs nothing but Python.
"""

import unicodedata
from collections.abc import Iterable, Iterator

BEGIN, END, REST = "[CLS]", "[SEP]", "##"
LONGEST_WORD = 100
IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Chinese characters, each of which is a word; those of Japanese and Korean writing are among them."""


class WordPieces:
    """Splits texts into pieces of a vocabulary, in lower case and without accents.

    A text begins with [CLS] and ends with [SEP]; one without words has no pieces at all. A word that no pieces make is
    left whole: it is unknown. What a text says in brackets, as [SEP], is text.

    >>> WordPieces(["fl", "##ute", "a", "."])("A flûte. Jo")
    ['[CLS]', 'a', 'fl', '##ute', '.', 'jo', '[SEP]']
    """

    end = (END,)
    """What a text still ends with when it is cut."""

    def __init__(self, vocabulary: Iterable[str]):
        self._pieces = frozenset(vocabulary)

    def __call__(self, text: str) -> list[str]:
        """Return the pieces of a text."""
        found = [piece for word in words(text) for piece in self._cut(word)]
        return [BEGIN, *found, END] if found else []

    def _cut(self, word: str) -> list[str]:
        """Return the longest piece that the word begins with, then that of the rest, and so on."""
        start, found = 0, []
        while start < len(word) <= LONGEST_WORD:
            begin = REST if start else ""
            ends = (end for end in range(len(word), start, -1) if begin + word[start:end] in self._pieces)
            end = next(ends, None)
            if end is None:
                return [word]
            found.append(begin + word[start:end])
            start = end
        return found or [word]


def words(text: str) -> Iterator[str]:
    """Yield what stands between spaces; a mark, a symbol of ASCII and a Chinese character stand alone."""
    spaced = "".join(f" {char} " if _is_ideograph(char) else _cleaned(char) for char in text)
    plain = (char for char in unicodedata.normalize("NFD", spaced) if unicodedata.category(char) != "Mn")
    # Character by character: a word that ends in a capital sigma is not treated apart.
    for word in "".join(char.lower() for char in plain).split():
        start = 0
        for place, char in enumerate(word):
            if _is_mark(char):
                yield from filter(None, (word[start:place], char))
                start = place + 1
        if start < len(word):
            yield word[start:]


def _cleaned(char: str) -> str:
    """Return a character, a space for any space, and nothing for what controls or formats."""
    if char in "\t\n\r" or unicodedata.category(char)[0] == "Z":
        return " "
    return "" if char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs") else char


def _is_ideograph(char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in IDEOGRAPHS)


def _is_mark(char: str) -> bool:
    ascii_symbol = char.isascii() and not char.isalnum() and char.isprintable()
    return ascii_symbol or unicodedata.category(char)[0] == "P"
