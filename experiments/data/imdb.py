"""The Large Movie Review Dataset (Maas et al. 2011): 50,000 reviews, scores 1-4 and 7-10, test films of their own."""

import re
from collections.abc import Iterator
from pathlib import Path

from experiments.data.fetch import Archive, member, members
from experiments.data.text import Example, held_out

ARCHIVE = Archive(
    "aclImdb_v1.tar.gz",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
_REVIEW = re.compile(r"(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")


def read(path: Path, *, scores: bool) -> Iterator[Example]:
    """Yield every labelled review; the class is neg or pos, or one of eight scores.

    All training reviews of one film are in one split.
    """
    films = {side: member(path, f"train/urls_{side}.txt").decode().splitlines() for side in ("neg", "pos")}
    for name, content in members(path):
        found = _REVIEW.search(name)
        if found:
            split, side, number, score = found.groups()
            text = content.decode("utf-8", errors="replace").replace("<br />", " ")
            label = score.zfill(2) if scores else side
            yield Example(text, label, held_out(films[side][int(number)]) if split == "train" else split)
