"""The embedded source: 62,721 noun glosses of WordNet 3.1 in ten lexicographer classes (made by extract_wordnet.py)."""

import hashlib
import lzma
from collections.abc import Iterable
from pathlib import Path

from experiments.base.errors import DataError
from experiments.base.files import content
from experiments.data.text import Example, split_by_hash
from experiments.data.text_task import TextOptions, TextTask

PATH = Path(__file__).parent.parent / "data" / "wordnet_glosses.tsv.xz"
SHA256 = "88ae51eb17ce586eca3992aebbbb0443376951263de6d9731f46a628f1db81c8"


def read(path: Path = PATH) -> list[Example]:
    """Return all examples, or raise DataError when the file is not the one this code was made for."""
    if not path.exists():
        raise DataError(f"{path} is missing: restore it from the repository.")
    packed = content(path)
    digest = hashlib.sha256(packed).hexdigest()
    if digest != SHA256:
        raise DataError(f"{path.name} has sha256 {digest[:12]}, not {SHA256[:12]}: restore it from the repository.")
    rows = (line.split("\t") for line in lzma.decompress(packed).decode().splitlines())
    return [Example(text, label, split_by_hash(synset)) for synset, label, text in rows]


class WordNet(TextTask):
    """Lexicographer classes of WordNet noun glosses."""

    @classmethod
    def examples(cls, options: TextOptions) -> Iterable[Example]:
        """Return the embedded glosses."""
        return read()
