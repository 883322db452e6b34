"""Texts with several topics or with numbers: the archive of Reuters-21578, scores of reviews, the user's own file."""

import io
import json
import tarfile

import pytest

from experiments import baseline
from experiments.base.errors import DataError, UsageError
from experiments.data.targets import Classes, Numbers, Tags
from experiments.data.text_files import read
from experiments.run.config import command_line, from_json, parse_args, to_json
from experiments.run.trained import load_run
from experiments.sweeping import grid
from experiments.tasks import TASKS, reuters
from experiments.train import main


def article(number, split="TRAIN", topics=("earn",), checked="YES", text=None):
    tags = "".join(f"<D>{topic}</D>" for topic in topics)
    text = (
        text or f"<TITLE>NEWS {number}</TITLE>\n<DATELINE> X, May 1 - </DATELINE><BODY>Profit of {number}.\n&#3;</BODY>"
    )
    start = f'<REUTERS TOPICS="{checked}" LEWISSPLIT="{split}" NEWID="{number}">'
    return f"{start}\n<TOPICS>{tags}</TOPICS><PLACES><D>usa</D></PLACES>\n<TEXT>&#2;\n{text}</TEXT>\n</REUTERS>\n"


def archive(path, *contents, mode="w:xz"):
    with tarfile.open(path, mode) as file:
        for number, content in enumerate(contents):
            info, data = tarfile.TarInfo(f"./reut2-{number:03}.sgm"), content.encode("latin-1")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_articles_of_the_split_with_their_topics(tmp_path):
    raw = "<TITLE></TITLE>\n******<!-- x -->BLAH &lt;BLAH.O> caf\u00e9 &amp; co"
    path = archive(
        tmp_path / "reuters21578.tar.xz",
        "<!DOCTYPE lewis>\n" + article(1, topics=("grain", "wheat")) + article(2, "TEST", ()),
        article(3, "NOT-USED") + article(4, checked="NO") + article(5, "TEST", text=raw),
    )
    one, two, five = reuters.read(path)
    assert (one.text, one.target) == ("NEWS 1\nProfit of 1.", ("grain", "wheat"))
    assert one.split in ("train", "validation")
    assert (two.target, two.split) == ((), "test")
    assert "BLAH <BLAH.O> caf\u00e9 & co" in five.text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "has no member reut2-000.sgm"),
        (["nothing"], "found no article"),
        (['<REUTERS TOPICS="YES">x</REUTERS>'], "expected TOPICS, LEWISSPLIT"),
    ],
)
def test_an_archive_that_is_another_is_one_line(contents, message, tmp_path):
    with pytest.raises(DataError, match=message):
        [*reuters.read(archive(tmp_path / "reuters21578.tar.xz", *contents))]


@pytest.mark.parametrize(("name", "mode"), [("reuters21578.tar.xz", "w:xz"), ("reuters21578.tar.gz", "w:gz")])
def test_the_task_reads_the_archive_in_both_forms(name, mode, tmp_path):
    many = "".join(article(number, "TEST" if number % 5 == 0 else "TRAIN") for number in range(60))
    archive(tmp_path / name, many, mode=mode)
    task = TASKS["reuters"](parse_args(["--task", "reuters", "--archives", str(tmp_path)]).data)
    assert task.codec.sizes["tags"] == 1
    assert len(task.splits["test"]) == 12
    assert next(task.batches("test")).targets.shape == (32, 1)


def review_file(path, rows, header="text,label"):
    path.write_text(header + "\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


ROWS = [(f"w{n % 3} w{n % 7} w{n % 5} number{n}", n % 3) for n in range(240)]


def test_a_column_of_tags(tmp_path):
    path = review_file(tmp_path / "tags.csv", [("a", "x | y|x"), ("b", ""), ("c", "z")])
    assert [row.target for row in read(path, targets="tags").examples] == [("x", "y"), (), ("z",)]
    path = review_file(tmp_path / "none.csv", [("a", ""), ("b", " | ")])
    with pytest.raises(DataError, match="expected 1 to 1000 tags, found 0"):
        read(path, targets="tags")


def test_a_column_of_numbers(tmp_path):
    path = review_file(tmp_path / "numbers.csv", [("a", "1"), ("b", "-2.5e1")])
    assert [row.target for row in read(path, targets="number").examples] == [1.0, -25.0]
    for bad in ("three", "nan", "inf", ""):
        path = review_file(tmp_path / "bad.csv", [("a", "1"), ("b", bad)])
        with pytest.raises(
            DataError, match=r"bad.csv, row 3: (column 'label' holds .*, expected a number|the label is)"
        ):
            read(path, targets="number")


@pytest.mark.parametrize(
    ("kind", "objective", "targets"),
    [("class", "classify", Classes), ("tags", "multilabel", Tags), ("number", "regress", Numbers)],
)
def test_what_a_file_holds_decides_what_is_learned(kind, objective, targets):
    config = parse_args(["--task", "file", "--path", "x.csv", "--data.targets", kind])
    assert config.objective == objective
    assert "--objective" not in command_line(config)
    assert from_json(to_json(config)) == parse_args(command_line(config)) == config
    assert TASKS["file"].targets_of(config.data) is targets
    (cell,) = grid.cells({"task": "file", "data": {"path": "x.csv", "targets": kind}})
    assert cell.objective == objective
    given = parse_args(
        ["--task", "file", f"--data.targets={kind}", "--objective", "language_model", "--encoder", "lstm"]
    )
    assert (given.objective, given.pooler) == ("language_model", "none")


def test_an_unknown_kind_of_column_is_one_line():
    with pytest.raises(UsageError, match=r"unknown value of data.targets 'tag': did you mean 'tags'"):
        parse_args(["--task", "file", "--path", "x.csv", "--data.targets", "tag"])


def test_a_file_of_numbers_trains_predicts_and_has_a_baseline(tmp_path, capsys):
    path = review_file(tmp_path / "numbers.csv", ROWS)
    line = ["--task", "file", "--path", str(path), "--data.targets", "number", "--data.buckets", "1"]
    small = ["--data.max-len", "8", "--encoder", "bag", "--encode.features", "8", "--pooler", "mean", "--epochs", "2"]
    assert main([*line, *small, "--out", str(tmp_path / "run")]) == 0
    facts = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert facts["objective"] == "regress"
    (record,) = load_run(tmp_path / "run").predict(["w1 w2"])
    assert record.keys() == {"number"}
    pytest.importorskip("sklearn")
    assert baseline.main(line) == 0
    assert "test mean squared error 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([("a b", n % 2) for n in range(10)], "number", "split has no examples"),
        ([(f"t{n}", n) for n in range(60)], "number", "no word is in two texts of the train split"),
        ([(f"t{n}", "a") for n in range(60)], "tags", "no word is in two texts of the train split"),
        ([(f"a b t{n}", 1) for n in range(60)], "number", "every text has the number 1"),
    ],
)
def test_a_baseline_of_too_little_is_one_line(rows, kind, message, tmp_path, capsys):
    pytest.importorskip("sklearn")
    path = review_file(tmp_path / "few.csv", rows)
    assert baseline.main(["--task", "file", "--path", str(path), "--data.targets", kind]) == 65
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_baseline_of_targets_that_a_task_has_not_is_one_line(tmp_path, capsys):
    pytest.importorskip("sklearn")
    path = review_file(tmp_path / "classes.csv", ROWS)
    assert baseline.main(["--task", "file", "--path", str(path), "--objective", "regress"]) == 2
    assert "the objective regress needs numbers, which the task has not" in capsys.readouterr().err
