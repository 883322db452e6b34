"""From text to words, and from words to numbers."""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

PADDING, UNKNOWN = 0, 1
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*\s|[\u3002\uff01\uff1f\n]")


Token = TypeVar("Token")


class Example(NamedTuple):
    """A text with its target and the split it belongs to."""

    text: str
    target: Any
    """A class by name, a tuple of tags, or a number."""
    split: str


def tenth(key: str) -> int:
    """Return 0 to 9, by the hash of the key: the part of the data that a text belongs to, whatever its place."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10


def split_by_hash(key: str) -> str:
    """Return a split: 80 % train, 10 % validation, 10 % test."""
    return {0: "validation", 1: "test"}.get(tenth(key), "train")


def held_out(text: str) -> str:
    """Return the split of a text of the official training part: a tenth of it is for validation."""
    return "validation" if tenth(f"validation {text}") == 0 else "train"


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text: runs of letters and digits, inner apostrophes kept.

    >>> split_words("A cat's-eye (or 2); well-known")
    ['a', "cat's", 'eye', 'or', '2', 'well', 'known']
    """
    return list(map(sys.intern, WORD.findall(text.lower())))  # one object a word, however often it is said


def split_sentences(text: str) -> list[list[str]]:
    r"""Return the words of every sentence; a sentence ends at . ! ? before a space and at a line break.

    >>> split_sentences("It cost 2.50. Why? (Ask\nhim.)")
    [['it', 'cost', '2', '50'], ['why'], ['ask'], ['him']]
    """
    return [words for words in map(split_words, SENTENCE_END.split(text)) if words]


def cut(tokens: Sequence[Token], most: int, end: Sequence[Token] = ()) -> Sequence[Token]:
    """Return the first `most` tokens; those of `end` stay the last of a text that is cut.

    >>> cut("abcdef", 4), cut(["a", "b", "c", "."], 3, ["."]), cut(["a", "."], 3, ["."])
    (['a', 'b', 'c', 'd'], ['a', 'b', '.'], ['a', '.'])
    """
    return tokens if len(tokens) <= most else [*tokens[: max(most - len(end), 0)], *end][:most]


class Vocabulary:
    """A fixed table of words; row 0 is padding, row 1 every word that is not in the table."""

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        self._index = {word: index for index, word in enumerate(self.words, start=UNKNOWN + 1)}

    @classmethod
    def count(cls, texts: Iterable[Sequence[str]], min_count: int) -> "Vocabulary":
        """Keep the words seen `min_count` times, the most frequent before others, ties in order."""
        counts = Counter(word for words in texts for word in words)
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words) + UNKNOWN + 1

    def encode(self, words: Sequence[str]) -> list[int]:
        """Return one number a word."""
        return [self._index.get(word, UNKNOWN) for word in words]
