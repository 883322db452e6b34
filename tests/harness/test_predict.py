"""The command that predicts: what it reads, what it writes, and that it holds no more than a batch."""

import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from experiments import predict
from experiments.base import files
from experiments.storage.arrays import GROUP, row_writer
from experiments.tasks import TASKS
from tests.harness.conftest import Toy
from tests.harness.untrained import saved, untrained

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = ["the small oak", "cat", "", "a saw the file " * 9, "unheard of — \u2003 words", "\tdog"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        trained = untrained("--pooler", "attention")
    return trained, saved(trained, tmp_path_factory.mktemp("runs") / "run")


def piped(monkeypatch, content: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_pipe_of_lines(run, monkeypatch, capsys):
    trained, folder = run
    piped(monkeypatch, "\n".join(TEXTS).encode())
    assert predict.main([str(folder)]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == list(trained.predict(TEXTS))
    assert err == ""


def test_more_texts_than_a_batch_keep_their_order(run):
    trained, _ = run
    many = [*TEXTS, *(f"dog {word}" for word in ("oak", "fern", "file") * 40)]
    one_by_one = {text: next(trained.predict([text])) for text in set(many)}
    for text, found in zip(many, trained.predict(iter(many)), strict=True):
        assert found["label"] == one_by_one[text]["label"]
        assert found["probability"] == pytest.approx(one_by_one[text]["probability"], rel=1e-4)


def test_batches_have_few_shapes(run):
    trained, _ = run
    assert [next(trained.codec.encode(["dog " * words])).tokens.shape[1] for words in (0, 1, 2, 3, 5, 7, 12, 99)] == [
        *(1, 1, 3, 3, 6, 12, 12, 12)
    ]


def test_one_text_must_be_in_a_list(run):
    with pytest.raises(TypeError, match=r"give a list, as predict\(\[text\]\)"):
        run[0].predict("a text")
    assert len(list(run[0].predict(["a text"]))) == 1
    assert list(run[0].predict([])) == []


ROWS = 'id,Review\n1,the small oak\n2,\n3,"cat, or\ndog"\n'


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("a.csv", ROWS, "", ["the small oak", "", "cat, or\ndog"]),
        ("a.csv", ROWS, "--column id", ["1", "2", "3"]),
        ("a.tsv", "id\ttext\n1\tcat, dog\n", "", ["cat, dog"]),
        ("a.csv", "\ufeffonly\ncat\n", "", ["cat"]),
        ("a.jsonl", '{"n": 1, "text": "cat"}\r\n\n{"text": null}\n{"text": "\\ud800 oak"}', "", ["cat", "", "? oak"]),
        ("a.txt", "\ufeffcat\r\n\r\n{dog}", "", ["cat", "", "{dog}"]),
        ("a.txt", "", "", []),
        ("a.csv", "", "", []),
        ("a.csv", "text\n", "", []),
        ("a.jsonl", "\n\n", "", []),
    ],
)
def test_kinds_of_files(name, content, options, expected, run, tmp_path, capsys):
    trained, folder = run
    (tmp_path / name).write_bytes(content.encode())
    assert predict.main([str(folder), str(tmp_path / name), *options.split()]) == 0
    out = capsys.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == list(trained.predict(expected))


def test_rows_of_csv(run, tmp_path, capsys):
    trained, folder = run
    (tmp_path / "a.txt").write_text("cat\noak\n")
    assert predict.main([str(folder), str(tmp_path / "a.txt"), "--format", "csv"]) == 0
    rows = [f"{row['label']},{row['probability']}" for row in trained.predict(["cat", "oak"])]
    assert capsys.readouterr().out.splitlines() == ["label,probability", *rows]
    predict.write_csv([{"tags": {"a": 0.5}, "p": None}])
    assert capsys.readouterr().out == 'tags,p\n"{""a"": 0.5}",\n'


def read(path):
    """The rows of a file, as NumPy and pyarrow read them."""
    if path.suffix == ".npy":
        return np.load(path)
    (column,) = parquet.read_table(path).columns
    return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_vectors(ending, run, tmp_path, capsys):
    trained, folder = run
    texts, a, b = [*TEXTS, *["dog"] * 40], tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    (tmp_path / "a.txt").write_text("\n".join(texts))
    line = [str(folder), str(tmp_path / "a.txt"), "--vectors"]
    assert predict.main([*line, str(a)]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == list(trained.predict(texts))
    vectors = read(a)
    assert vectors.shape == (46, 16)
    assert vectors.dtype == np.float32
    assert not vectors[2].any()
    ((_, outputs),) = trained.outputs(["cat"])
    np.testing.assert_allclose(vectors[1], outputs["pooled"][0], rtol=1e-5)
    (tmp_path / "a.txt").write_text("")
    assert predict.main([*line, str(a)]) == 2
    assert f"--vectors {a} exists: choose another name." in capsys.readouterr().err
    assert len(read(a)) == 46, "nothing is written over"
    assert predict.main([*line, str(b)]) == 0
    assert read(b).shape == (0, 16)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", a.name, b.name}


def test_a_table_of_vectors_has_one_column_of_lists_of_their_length(tmp_path):
    path = tmp_path / "a.parquet"
    with row_writer(path, 3) as write:
        write(np.ones((GROUP - 1, 3)))
        write(np.zeros((5, 3)))
        write(np.ones((2, 3)))
    schema = parquet.read_schema(path)
    assert schema.names == ["vector"]
    assert str(schema.field("vector").type) == "fixed_size_list<element: float>[3]"
    groups = parquet.ParquetFile(path).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [GROUP, 4, 2]


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_a_file_of_vectors_appears_whole_or_not_at_all(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    with pytest.raises(ValueError, match="rows of 2 numbers"), row_writer(path, 2) as write:
        write(np.ones((3, 3)))
    gc.collect()  # a writer that is collected late writes nothing
    assert [*tmp_path.iterdir()] == []
    with row_writer(path, 2) as write:
        for row in range(1000):
            write(np.full((1, 2), row))
        assert [file.name for file in tmp_path.iterdir()] == [f".a{ending}.{os.getpid()}.partial"]
    np.testing.assert_array_equal(read(path)[:, 1], np.arange(1000))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is a Linux one here")
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_vectors_on_a_full_disk(ending, run, tmp_path, capsys):
    """The system refuses files of more than 100 bytes, as a full disk would."""
    (tmp_path / "a.txt").write_text("cat\n" * 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        code = predict.main([str(run[1]), str(tmp_path / "a.txt"), "--vectors", str(tmp_path / f"b{ending}")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    gc.collect()
    assert code == 74
    said = capsys.readouterr().err
    assert said.startswith("experiments.predict: ")
    assert said.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_a_process_that_is_killed_leaves_no_file_of_vectors(ending, tmp_path):
    """What it wrote is there under a hidden name, which is no file of vectors."""
    code = f"""
import os, signal
from pathlib import Path
import numpy as np
from experiments.storage.arrays import row_writer
with row_writer(Path("a{ending}"), 2) as write:
    for _ in range(10):
        write(np.ones((1000, 2)))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".a{ending}.")
    assert left.suffix == ".partial"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere getrusage begins anew in a child")
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_many_vectors_take_no_more_memory_than_some(ending, tmp_path, capsys):
    """200,000 rows are 98 MiB; the peaks of two processes are compared."""
    code = f"""
import sys
from pathlib import Path
import numpy as np
from experiments.run.environment import peak_memory
from experiments.storage.arrays import row_writer
with row_writer(Path(sys.argv[1] + "{ending}"), 128) as write:
    for seed in range(int(sys.argv[1]) // 100):
        write(np.random.default_rng(seed).standard_normal((100, 128), np.float32))
print(peak_memory())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    some, many = (
        int(subprocess.check_output([sys.executable, "-c", code, rows], cwd=tmp_path, env=environment))
        for rows in ("10000", "200000")
    )
    with capsys.disabled():
        print(f"\n{ending}: {some / 2**20:.0f} MiB for 10,000 rows, {many / 2**20:.0f} MiB for 200,000")
    assert many < some + 2**24


def test_parquet_without_pyarrow_is_one_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.txt").write_text("cat\n")
    assert predict.main([str(run[1]), str(tmp_path / "a.txt"), "--vectors", str(tmp_path / "a.parquet")]) == 2
    said = 'experiments.predict: a .parquet file needs pyarrow: python -m pip install -e ".[parquet]"\n'
    assert capsys.readouterr().err == said
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_texts_are_read_when_they_are_needed(run):
    trained, _ = run
    read = []

    def endless():
        while True:
            read.append("cat")
            yield "cat"

    found = trained.predict(endless())
    next(found)
    assert len(read) == trained.config.data.batch_size


def test_a_reader_that_has_enough(run, monkeypatch):
    def close(*_):
        raise BrokenPipeError

    monkeypatch.setattr(predict, "write_jsonl", close)
    monkeypatch.setattr(predict.os, "dup2", lambda *_: None)
    piped(monkeypatch, b"cat\n")
    assert predict.main([str(run[1])]) == 0


def test_a_pipe_without_an_end_and_a_reader_that_has_enough(run, monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:4] = b"cat\n"
            return 4

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    monkeypatch.setattr(sys, "stdout", Closed())
    assert predict.main([str(run[1])]) == 74


def test_a_terminal_is_not_moved_by_a_label(monkeypatch, capsys):
    record = {"label": "a\x1b[2J\x9b2Jb"}
    for write in (predict.write_jsonl, predict.write_csv):
        write([record])
        assert "\x9b" in capsys.readouterr().out, "a file gets the label as it is"
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
        write([record])
        assert capsys.readouterr().out.replace("\n", "").isprintable()
        monkeypatch.undo()


HOSTILE = {
    "no run": (
        "nowhere FILE",
        b"cat\n",
        "a.txt",
        65,
        "nowhere does not exist: give the folder of a",
    ),
    "no file": ("RUN nowhere.txt", b"", "a.txt", 65, "there is no file nowhere.txt"),
    "UTF-16": (
        "RUN FILE",
        "cat\n".encode("utf-16"),
        "a.txt",
        65,
        "a.txt, line 1: no text in UTF-8: it holds zero bytes",
    ),
    "Latin-1": ("RUN FILE", b"cat\ncaf\xe9\n", "a.txt", 65, "a.txt, line 2, byte 3: found"),
    "a line without an end": ("RUN FILE", b"x" * (files.LONGEST_LINE + 1), "a.txt", 65, "longer than 1048576 bytes"),
    "no column of texts": ("RUN FILE", b"a,b\n1,2\n", "a.csv", 65, "which column is the text? Give --column, one of a"),
    "another column": ("RUN FILE --column c", b"a,b\n1,2\n", "a.csv", 65, "no column 'c' for the text: it has a, b."),
    "a column of text lines": ("RUN FILE --column c", b"cat\n", "a.txt", 65, "a.txt has no columns"),
    "a row too long": (
        "RUN FILE",
        b"text,b\n1,2\n1,2,3\n",
        "a.csv",
        65,
        "row 3: found 3 columns, expected 2 (text, b)",
    ),
    "an open quote": ("RUN FILE", b'text,b\n"1,2\n', "a.csv", 65, "expected quotes that close"),
    "JSON cut short": ("RUN FILE", b'{"text": "a"}\n{"text', "a.jsonl", 65, "row 2: expected one JSON object a line"),
    "a row without text": ("RUN FILE", b'{"text": "a"}\n{"b": 1}', "a.jsonl", 65, "row 2: the text is missing"),
    "vectors as text": ("RUN FILE --vectors a.txt", b"cat\n", "a.txt", 2, "that ends in .npy or .parquet"),
    "vectors nowhere": ("RUN FILE --vectors nowhere/a.npy", b"cat\n", "a.txt", 74, "nowhere"),
    "a table nowhere": ("RUN FILE --vectors nowhere/a.parquet", b"cat\n", "a.txt", 74, "nowhere"),
    "a format": ("RUN FILE --format xml", b"cat\n", "a.txt", 2, "invalid choice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case, run, tmp_path, monkeypatch, capsys):
    line, content, name, code, message = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert predict.main(line.replace("RUN", str(run[1])).replace("FILE", name).split()) == code
    said = capsys.readouterr().err
    assert said.startswith("experiments.predict: ")
    assert said.count("\n") == 1
    assert message in said
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "parameters.npz"])
def test_a_damaged_run(name, run, tmp_path, monkeypatch, capsys):
    folder = saved(run[0], tmp_path / "run")
    for content in (b"", b"{}", b"[" * 100_000, b"\x80\x04\x95"):
        (folder / name).write_bytes(content)
        piped(monkeypatch, b"cat\n")
        assert predict.main([str(folder)]) in (2, 65)
        assert capsys.readouterr().err.count("\n") == 1
