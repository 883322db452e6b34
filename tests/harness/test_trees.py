"""Trees of hand-made levels, ties included; F1 counted by hand; what the analysis and `explain` say of a tiny model."""

import functools
import json
import re
import zipfile

import numpy as np
import pytest

from experiments import analyse, explain
from experiments.analyses import trees as asked
from experiments.base.errors import DataError
from experiments.data import trees
from experiments.data.trees import brackets, f1, inner, parse, spoken, tree_of
from experiments.run.explanation import explained
from experiments.run.levels import levels
from tests.harness.test_ordered import by_unit
from tests.harness.untrained import saved, untrained

WORDS = ["a", "b", "c", "d", "e", "f"]
ORDERED = ["--encoder", "onlstm", "--encode.chunks", "4", "--encode.layers", "2", "--encode.embedding", "6"]
LANGUAGE = [*ORDERED, "--objective", "language_model"]


@functools.cache
def model(*options: str):
    """An untrained model, which no test changes."""
    return untrained(*options)


def nested(words, distances, cut):
    """The same trees from nested lists, as the paper says it: [left, [word, right]], or both parts alone."""
    if len(words) == 1:
        return words[0]
    if cut == "even":
        at = max(range(1, len(words)), key=lambda place: (distances[place], -place))
        return [nested(words[:at], distances[:at], cut), nested(words[at:], distances[at:], cut)]
    at = max(range(len(words)), key=lambda place: (distances[place], -place))
    right = [words[at], nested(words[at + 1 :], distances[at + 1 :], cut)] if at + 1 < len(words) else words[at]
    return [nested(words[:at], distances[:at], cut), right] if at else right


def in_words(tree) -> str:
    return tree if isinstance(tree, str) else f"[{' '.join(map(in_words, tree))}]"


@pytest.mark.parametrize(
    ("distances", "even", "paper"),
    [
        ([0, 1, 2, 3, 4, 5], "[[[[[a b] c] d] e] f]", "[[[[[a b] c] d] e] f]"),
        ([5, 4, 3, 2, 1, 0], "[a [b [c [d [e f]]]]]", "[a [b [c [d [e f]]]]]"),
        ([0, 0, 0, 0, 0, 0], "[a [b [c [d [e f]]]]]", "[a [b [c [d [e f]]]]]"),
        ([0, 1, 3, 1, 2, 1], "[[a b] [[c d] [e f]]]", "[[a b] [c [d [e f]]]]"),
        ([0, 2, 1, 2, 1, 2], "[a [[b c] [[d e] f]]]", "[a [b [c [d [e f]]]]]"),
        ([9, 0, 1, 0, 1, 0], "[[a b] [[c d] [e f]]]", "[a [b [c [d [e f]]]]]"),
    ],
)
def test_trees_of_levels_by_hand(distances, even, paper):
    assert brackets(WORDS, tree_of(np.array(distances), "even")) == even
    assert brackets(WORDS, tree_of(np.array(distances), "paper")) == paper


@pytest.mark.parametrize("cut", ["even", "paper"])
def test_trees_of_random_levels_with_ties_are_those_of_the_recursion(cut):
    random = np.random.default_rng(0)
    for length in (1, 2, 3, 7, 20):
        words = [f"w{n}" for n in range(length)]
        for _ in range(20):
            distances = random.integers(0, 4, length)
            spans = tree_of(distances, cut)
            assert brackets(words, spans) == in_words(nested(words, distances.tolist(), cut))
            assert len(spans) == len(set(spans)) == max(length - 1, 0), "a binary tree"


def test_no_recursion_in_long_texts():
    assert len(tree_of(np.zeros(3000), "paper")) == 2999


def test_punctuation_is_no_leaf():
    tree = parse("(3 (2 (2 The) (2 (2 well-known) (2 film))) (3 (3 (2 is) (3 (2 n't) (3 bad))) (2 .)))", "a line")
    leaves, spans = spoken(tree)
    assert leaves == [["the"], ["well", "known"], ["film"], ["is"], ["n't"], ["bad"]]
    assert spans == {(0, 3), (1, 3), (3, 6), (4, 6)}


def test_f1_by_hand():
    expected = {(0, 3), (1, 3), (3, 6), (4, 6)}
    found = inner([(0, 6), (0, 1), (0, 3), (1, 3), (3, 5), (2, 5)], 6)
    assert found == {(0, 3), (1, 3), (3, 5), (2, 5)}
    assert f1(found, expected) == pytest.approx(0.5)
    assert f1(expected, expected) == 1
    assert f1(set(), expected) == 0
    assert f1({(0, 3)}, expected) == pytest.approx(2 * (1 * 0.25) / (1 + 0.25))


def test_balanced_trees():
    assert brackets(WORDS[:5], trees.balanced(5)) == "[[[a b] c] [d e]]"
    assert trees.balanced(1) == []


LINES = {
    "train.txt": "(2 (2 a) (2 b))\n",
    "dev.txt": "(2 (2 (2 the) (2 dog)) (2 (2 saw) (2 (2 a) (2 cat))))\n(2 (2 oak) (2 .))\n",
    "test.txt": (
        "(2 (2 (2 the) (2 small-ish)) (2 (2 oak) (2 (2 used) (2 in))))\n"
        "(2 (2 (2 a) (2 (2 file) (2 of))) (2 (2 ,) (2 (2 the) (2 saw))))\n"
    ),
}
LONG = 20
LINES["test.txt"] += "(2 (2 cat) " * LONG + "(2 dog)" + ")" * LONG + "\n"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / trees.ARCHIVE.name
    with zipfile.ZipFile(path, "w") as file:
        for name, lines in LINES.items():
            file.writestr(f"trees/{name}", lines)
    return path


def by_hand(trained, words: list[str], layer: int = 0) -> np.ndarray:
    """The levels of words in the first layer of a language model, unit by unit, after the word of the beginning."""
    table = np.float64(trained.objective.encoder.words.table.embedding[...])
    numbers = [0, *trained.codec.vocabulary.encode(words)]
    return by_unit(trained.objective.encoder.layers[0], table[numbers], np.ones(len(numbers), bool))[1][1:]


def test_a_leaf_has_the_level_of_its_first_word_and_no_sentence_is_cut(archive):
    trained = model(*LANGUAGE)
    sentences = asked._sentences(archive, "test")
    found = asked.distances_of(trained, sentences)
    assert [one.shape for one in found] == [(2, 5), (2, 5), (2, LONG + 1)]
    expected = by_hand(trained, ["the", "small", "ish", "oak", "used", "in"])
    np.testing.assert_allclose(found[0][0], expected[[0, 1, 3, 4, 5]], rtol=1e-4)
    np.testing.assert_allclose(found[2][0], by_hand(trained, ["cat"] * LONG + ["dog"]), rtol=1e-4)


def test_a_classifier_has_levels_too():
    trained = model(*ORDERED, "--pooler", "mean")
    (batch,) = trained.codec.encode(["the small oak"])
    table = np.float64(trained.objective.encoder.words.table.embedding[...])
    vectors = table[trained.codec.vocabulary.encode(["the", "small", "oak"])]
    expected = by_unit(trained.objective.encoder.layers[0], vectors, np.ones(3, bool))[1]
    np.testing.assert_allclose(levels(trained.objective, batch)[0, 0, :3], expected, rtol=1e-4)
    (one,) = explained(trained, ["the small oak"])
    np.testing.assert_allclose(one.weights["level 1"], expected, rtol=1e-4)
    assert {*one.weights} == {"share", "level 1", "level 2"}


def spans_of(line: str) -> set[tuple[int, int]]:
    """The constituents of a line of brackets that say something."""
    opened, found, at = [], set(), 0
    for part in re.findall(r"\[|\]|[^\s\[\]]+", line):
        if part == "[":
            opened.append(at)
        elif part == "]":
            found.add((opened.pop(), at))
        else:
            at += 1
    return {(start, end) for start, end in found if 1 < end - start < at}


def test_the_analysis_tells_the_chosen_layer_once(archive, tmp_path, capsys):
    run = saved(model(*LANGUAGE), tmp_path / "run")
    assert analyse.main([str(run), "--analysis", "trees", "--ask.trees", str(archive)]) == 0
    assert "| balanced |" in capsys.readouterr().out
    found = json.loads((run / "analyses" / "trees.json").read_text())
    assert found["summary"] == {"cut": "paper", "sentences of dev": 1, "of test": 3}
    rows = {(row["tree"], row["layer"]): row for row in found["table"]}
    assert rows["right-branching", ""]["dev F1"] == pytest.approx(2 / 3)  # (2, 5), (3, 5) of (0, 2), (2, 5), (3, 5)
    for name in ("untrained", "this run"):
        of_layers = [rows[name, layer] for layer in (1, 2)]
        best = int(np.argmax([row["dev F1"] for row in of_layers]))
        assert of_layers[1 - best]["test F1"] == ""
    assert rows["this run", best + 1]["test F1"] == pytest.approx(np.mean([one["F1"] for one in found["examples"]]))
    for one in found["examples"]:
        assert one["F1"] == pytest.approx(f1(spans_of(one["found"]), spans_of(one["expected"])))
    assert found["examples"][0]["expected"] == "[[the small-ish] [oak [used in]]]"


def test_answers_to_other_questions_are_kept(archive, tmp_path, capsys):
    run = saved(model(*LANGUAGE), tmp_path / "run")
    line = [str(run), "--analysis", "trees", "--ask.trees", str(archive), "--ask.cut"]
    for cut in ("paper", "even", "paper", "even"):
        assert analyse.main([*line, cut]) == 0
    cuts = {path.name: json.loads(path.read_text())["summary"]["cut"] for path in (run / "analyses").iterdir()}
    assert cuts == {"trees.json": "paper", "trees-2.json": "even"}
    (run / "analyses" / "trees.json").write_text("{")
    assert analyse.main([*line, "paper"]) == 0
    assert (run / "analyses" / "trees.json").read_text() == "{"
    assert capsys.readouterr().out.endswith("trees-3.json\n")


def test_levels_that_are_the_tree_find_it(archive, monkeypatch):
    """Distances planted from the parses score 1 in the layer that has them, and dev chooses that layer."""
    heights = {5: {(0, 2): [0, 1, 3, 2, 1], (0, 3): [0, 2, 1, 3, 2]}, LONG + 1: {(1, LONG + 1): range(LONG + 1, 0, -1)}}

    def planted(trained, sentences):
        good = [next(d for span, d in heights[len(one.leaves)].items() if span in one.spans) for one in sentences]
        return [np.array([np.arange(len(one)), one], float) for one in good]

    monkeypatch.setattr(asked, "distances_of", planted)
    options = asked.TreeOptions(trees=archive, cut="even")
    row = asked.Trees(options)(model(*LANGUAGE)).table[-1]
    assert row == {"tree": "this run", "layer": 2, "dev F1": 1.0, "test F1": 1.0}


@pytest.mark.parametrize(
    ("options", "content", "code", "message"),
    [
        (["--encoder", "gru", "--objective", "language_model"], LINES, 2, "train one with --encoder onlstm"),
        (LANGUAGE, {**LINES, "dev.txt": "(2 (2 a) (2 b))\n"}, 65, "no sentence of dev.txt has a constituent"),
        (LANGUAGE, {**LINES, "test.txt": "(2 (2 a) (2 b)\n"}, 65, "test.txt, line 1: found"),
        (LANGUAGE, {"train.txt": ""}, 65, "has no member trees/dev.txt"),
        (LANGUAGE, None, 65, "there is no file"),
    ],
)
def test_bad_input_is_one_line(options, content, code, message, tmp_path, one_line):
    run = saved(model(*options), tmp_path / "run")
    path = tmp_path / "trees.zip"
    if content is not None:
        with zipfile.ZipFile(path, "w") as file:
            for name, lines in content.items():
                file.writestr(f"trees/{name}", lines)
    one_line(analyse.main, [str(run), "--analysis", "trees", "--ask.trees", str(path)], code, message)


def test_a_cut_archive_is_refused(archive):
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read"):
        trees.read(archive, "test")


def test_explain_shows_the_tree_of_every_layer(tmp_path, capsys):
    trained = model(*LANGUAGE)
    run = saved(trained, tmp_path / "run")
    text = "the small oak of <b> dogs"
    assert explain.main([str(run), text, "", "oak"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "toy, onlstm, none, no exponent"
    words = ["the", "small", "oak", "of", "b", "dogs"]
    tree = brackets([*words[:4], "b?", "dogs?"], tree_of(by_hand(trained, words), "paper"))
    assert f"tree 1: {tree}" in printed
    assert sum(line.startswith("tree 2: ") for line in printed) == 2
    assert "tree 1: oak" in printed
    page = tmp_path / "page.html"
    assert explain.main([str(run), text, "--html", str(page)]) == 0
    assert f'<h3>Tree 1</h3>\n<p class="words">{tree}</p>' in page.read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--split", "train"], 2, "leave out --split and --texts"),
        (["--archives", "."], 2, "has no archive: leave out --archives"),
    ],
)
def test_the_texts_are_those_of_the_archive(options, code, message, tmp_path, one_line):
    run = saved(model(*LANGUAGE), tmp_path / "run")
    one_line(analyse.main, [str(run), "--analysis", "trees", *options], code, message)
