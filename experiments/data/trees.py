"""Binary trees of sentences: those of the Stanford Sentiment Treebank, and those made from distances between words.

A constituent is a span [start, end) of leaves. What two trees of a sentence have in common is counted by spans.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from experiments.base import files
from experiments.base.errors import DataError
from experiments.data.archives import member
from experiments.data.fetch import Archive
from experiments.data.text import split_words

ARCHIVE = Archive("trainDevTestTrees_PTB.zip", "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip")
FILES = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
_PARTS = re.compile(r"\(([0-4])(?= )|(\))|([^\s()]+)|(\()")

Span: TypeAlias = tuple[int, int]
Cut: TypeAlias = Literal["paper", "even"]


class Node(NamedTuple):
    """A phrase: its words are those from `start` to before `end`."""

    start: int
    end: int
    grade: int


class Tree(NamedTuple):
    """A sentence, and the nodes of its tree, children before parents, the root last."""

    words: list[str]
    nodes: list[Node]


def read(path: Path, split: str) -> list[Tree]:
    """Return the trees of a split of the archive; see `parse`."""
    content = files.text(member(path, f"trees/{FILES[split]}"), f"{path.name}, {FILES[split]}")
    return [parse(line, f"{path.name}, {FILES[split]}, line {n}") for n, line in enumerate(content.splitlines(), 1)]


def parse(line: str, where: str) -> Tree:
    """Return the tree of a line, as (3 (2 a) (3 b)).

    Raises:
        DataError: the line holds no tree, or more than one; the message begins with `where`.
    """
    words: list[str] = []
    opened: list[tuple[int, int]] = []
    nodes: list[Node] = []
    for grade, closed, word, stray in _PARTS.findall(line):
        if stray or not (opened or (grade and not nodes)):
            break
        if grade:
            opened.append((len(words), int(grade)))
        elif closed:
            start, value = opened.pop()
            nodes.append(Node(start, len(words), value))
        else:
            words.append({"-LRB-": "(", "-RRB-": ")"}.get(word, word))
    else:
        if nodes and not opened:
            return Tree(words, nodes)
    raise DataError(f"{where}: found {line!r}, expected one tree with grades of 0 to 4, such as (3 (2 a) (3 b)).")


def spoken(tree: Tree) -> tuple[list[list[str]], set[Span]]:
    """Return the leaves that are no punctuation, each as its words, and the constituents over them."""
    words = [split_words(word) for word in tree.words]
    places = np.cumsum([0] + [bool(found) for found in words]).tolist()
    return [found for found in words if found], inner(((places[a], places[b]) for a, b, _ in tree.nodes), places[-1])


def inner(spans: Iterable[Span], leaves: int) -> set[Span]:
    """Return the spans that say something: those of two leaves and more, but for the whole sentence."""
    return {(start, end) for start, end in spans if 1 < end - start < leaves}


def tree_of(distances: Float[np.ndarray, " T"], cut: Cut) -> list[Span]:
    """Return the constituents of a binary tree, a parent before its children, from a distance before every leaf.

    A span is cut before its largest distance, the first one of equal ones, and so are its parts:

        even   into the leaves before that place and those from it on; the first distance of a span has no part in it
        paper  into the leaves before that place, the leaf there, and the leaves behind it: [left, [leaf, right]]

    The second is that of Shen et al. (2019). It favours branches to the right: the leaf behind a cut is always joined
    with all leaves behind it in the span.
    """
    found: list[Span] = []
    rest = [(0, len(distances))]
    while rest:
        start, end = rest.pop()
        if end - start < 2:
            continue
        found.append((start, end))
        first = start + (cut == "even")
        at = first + int(np.argmax(distances[first:end]))
        if cut == "paper":
            if start < at and end - at > 1:
                found.append((at, end))
            rest.append((at + 1, end))
        else:
            rest.append((at, end))
        rest.append((start, at))
    return found


def balanced(leaves: int) -> list[Span]:
    """Return the constituents of the tree whose spans are cut in the middle; the left part may have one leaf more."""
    found, rest = [], [(0, leaves)]
    while rest:
        start, end = rest.pop()
        if end - start > 1:
            found.append((start, end))
            middle = (start + end + 1) // 2
            rest += [(middle, end), (start, middle)]
    return found


def f1(found: set[Span], expected: set[Span]) -> float:
    """Return the harmonic mean of precision and recall; one of the two trees has constituents."""
    return 2 * len(found & expected) / (len(found) + len(expected))


def brackets(words: Sequence[str], spans: Iterable[Span]) -> str:
    """Return a tree in one line, as [[the film] [is good]]."""
    opened, closed = [0] * len(words), [0] * len(words)
    for start, end in spans:
        opened[start] += 1
        closed[end - 1] += 1
    return " ".join("[" * a + word + "]" * b for a, word, b in zip(opened, words, closed, strict=True))
