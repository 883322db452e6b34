"""Make the embedded data set: glosses of WordNet nouns in the ten largest lexicographer classes.

Usage: `python -m experiments.data.extract_wordnet DICT_FOLDER`, a folder that holds `data.noun` of WordNet 3.1.

The result is one line a synset, `offset <TAB> class <TAB> gloss`, sorted by offset and compressed without a time
stamp, so that the same database gives the same bytes. Of synsets whose glosses have the same words, the first in the
database stays: no text can fall into two splits.
"""

import hashlib
import lzma
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from experiments.data.text import split_words

CLASSES = 10
HERE = Path(__file__).parent

# The numbers of the noun lexicographer files, as the WordNet manual page lexnames(5) fixes them.
LEXICOGRAPHER = """
03 Tops 04 act 05 animal 06 artifact 07 attribute 08 body 09 cognition 10 communication 11 event 12 feeling 13 food
14 group 15 location 16 motive 17 object 18 person 19 phenomenon 20 plant 21 possession 22 process 23 quantity
24 relation 25 shape 26 state 27 substance 28 time
"""


class Synset(NamedTuple):
    """One line of `data.noun`, as far as we need it."""

    offset: str
    label: str
    gloss: str


def parse(line: str) -> Synset:
    """Read one record: `offset lex_filenum ss_type ... | gloss`."""
    record, gloss = line.split("|", 1)
    offset, lexicographer = record.split()[:2]
    numbers_and_names = LEXICOGRAPHER.split()
    label = numbers_and_names[numbers_and_names.index(lexicographer) + 1]
    return Synset(offset, label, " ".join(gloss.split()))


def extract(database: Path) -> tuple[str, str]:
    """Return the table and the licence notice that heads the database."""
    lines = (database / "data.noun").read_text(encoding="utf-8").splitlines()
    notice = [line[4:].strip() for line in lines if line.startswith("  ")]
    synsets = [parse(line) for line in lines if not line.startswith("  ")]
    first_of_gloss = {" ".join(split_words(synset.gloss)): synset for synset in reversed(synsets)}
    synsets = list(first_of_gloss.values())
    largest = {label for label, _ in Counter(synset.label for synset in synsets).most_common(CLASSES)}
    table = sorted(synset for synset in synsets if synset.label in largest)
    return "".join("\t".join(synset) + "\n" for synset in table), "\n".join(notice).strip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the table and the notice beside this file, and print the digest that the loader checks."""
    if len(arguments) != 1:
        print("usage: python -m experiments.data.extract_wordnet DICT_FOLDER", file=sys.stderr)
        return 2
    table, notice = extract(Path(arguments[0]))
    packed = lzma.compress(table.encode(), preset=9 | lzma.PRESET_EXTREME)
    (HERE / "wordnet_glosses.tsv.xz").write_bytes(packed)
    (HERE / "LICENSE.wordnet").write_text(notice, encoding="utf-8")
    digest = hashlib.sha256(packed).hexdigest()
    print(f"{table.count(chr(10))} glosses, {len(packed)} bytes, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
