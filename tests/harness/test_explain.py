"""What is shown of a text: the numbers of its pooling, in colour, in columns and on a page; nothing is trusted."""

import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import explain
from experiments.reporting import attended
from experiments.reporting import explained as shown
from experiments.run.explanation import Explained, explained, exponent
from experiments.tasks import TASKS
from tests.harness.conftest import Toy
from tests.harness.untrained import saved, untrained

TEXTS = ["the small oak of a dog", "cat", "", "unheard words", "oak " * 20]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model and its folder by pooler, each made when it is first asked for."""
    made = {}

    def run(pooler: str, *options: str):
        if (pooler, *options) not in made:
            trained = untrained("--pooler", pooler, *options)
            made[pooler, *options] = trained, saved(trained, tmp_path_factory.mktemp("run") / pooler)
        return made[pooler, *options]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", Toy)
        yield run


def test_weights_of_a_learned_norm(runs):
    """The attention is v = a^p / sum a^p, the share v_i h_i^p / sum_j v_j h_j^p, averaged over the features."""
    trained, _ = runs("learned_norm")
    found = [*explained(trained, TEXTS)]
    ((_, outputs),) = trained.outputs(TEXTS)
    p = exponent(trained)
    assert p == pytest.approx(2.0)
    states = np.exp(np.tanh(np.asarray(outputs["states"][0, :6], np.float64)))
    powers = np.asarray(outputs["attention"][0, :6], np.float64)
    weights = powers / powers.sum()
    np.testing.assert_allclose(found[0].weights["attention"], weights, rtol=1e-4)
    parts = weights[:, None] * states ** float(p[0])
    np.testing.assert_allclose(found[0].weights["share"], (parts / parts.sum(axis=0)).mean(axis=1), rtol=1e-4)
    assert [len(one.units) for one in found] == [6, 1, 0, 2, 12]
    assert found[3].known == [False, False]
    assert all(len(weights) == len(one.units) for one in found for weights in one.weights.values())


SENTENCES = ["--encoder", "han", "--encode.embedding", "8", "--encode.features", "8", "--data.shortest", "3"]


@pytest.mark.parametrize("options", [[], SENTENCES])
def test_a_figure_of_attention_has_the_same_numbers(options, runs):
    """Where sentences are attended to, each of their words has the attention of its sentence."""
    trained, folder = runs("attention", *options)
    text = "the small oak. a dog of the fern"
    (found,) = explained(trained, [text])
    each = np.repeat(found.weights["attention"], [len(unit.split()) for unit in found.units])
    assert len(each) == 8
    np.testing.assert_allclose(attended.weights(SimpleNamespace(folder=folder), text), each, rtol=1e-5)


def test_prediction_is_that_of_predict(runs):
    trained, _ = runs("learned_norm")
    for one, record in zip(explained(trained, TEXTS), trained.predict(TEXTS), strict=True):
        assert one.scores[0] == (record["label"], pytest.approx(record["probability"], rel=1e-5))
        assert sum(probability for _, probability in one.scores) == pytest.approx(1, rel=1e-5)
        assert [number for _, number in one.scores] == sorted((number for _, number in one.scores), reverse=True)


@pytest.mark.parametrize(("pooler", "of_state"), [("mean", np.ones(6) / 6), ("first", np.eye(6)[0])])
def test_a_pooler_without_attention_has_shares_only(pooler, of_state, runs):
    trained, _ = runs(pooler)
    (found,) = explained(trained, TEXTS[:1])
    ((_, outputs),) = trained.outputs(TEXTS[:1])
    moves = of_state * np.abs(np.asarray(outputs["states"][0, :6], np.float64)).sum(axis=-1)
    assert found.weights.keys() == {"share"}
    np.testing.assert_allclose(found.weights["share"], moves / moves.sum(), rtol=1e-4, atol=1e-6)


def test_share_of_max_is_where_the_largest_states_are(runs):
    trained, _ = runs("max")
    (found,) = explained(trained, TEXTS[:1])
    ((_, outputs),) = trained.outputs(TEXTS[:1])
    states = np.asarray(outputs["states"][0, :6], np.float64)
    moves = np.bincount(states.argmax(axis=0), np.abs(states.max(axis=0)), minlength=6)
    np.testing.assert_allclose(found.weights["share"], moves / moves.sum(), rtol=1e-4)


def test_sentences_are_the_units_of_an_encoder_that_reads_them(runs):
    options = ("--encoder", "han", "--encode.embedding", "8", "--encode.features", "8", "--data.shortest", "2")
    trained, _ = runs("learned_norm", *options)
    (found,) = explained(trained, ["The small oak. Unheard words! A. A cat of moss"])
    assert found.units == ["the small oak", "unheard words", "a a cat of moss"]
    assert found.known == [True, False, True]
    assert found.weights["share"].sum() == pytest.approx(1, rel=1e-4)


def test_columns(runs, capsys):
    trained, folder = runs("learned_norm")
    assert explain.main([str(folder), *TEXTS[:4]]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert out.startswith("toy, bag, learned_norm, p = 2.000\n")
    (one, *_) = explained(trained, TEXTS[:1])
    for word, attention, share in zip(one.units, *one.weights.values(), strict=True):
        assert re.search(rf"^{word} +{attention:.4f} +{share:.4f}$", out, re.MULTILINE)
    assert f"prediction: {one.scores[0][0]} {one.scores[0][1]:.4f}" in out
    assert out.count("(no words)") == 1
    assert "unheard?" in out


def test_colour_is_for_terminals(runs, capsys, monkeypatch):
    _, folder = runs("attention")
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    assert explain.main([str(folder), TEXTS[0]]) == 0
    out = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert "\x1b[48;5;" in out
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines()[3:])) <= 30
    assert plain.split().count("oak") == 2, "a line of attention and a line of shares"
    assert out.count("\x1b[48") == out.count("\x1b[0m"), "every colour ends"
    monkeypatch.setenv("NO_COLOR", "1")
    assert explain.main([str(folder), TEXTS[0]]) == 0
    assert "\x1b" not in capsys.readouterr().out


HOSTILE = Explained(
    ["a\x1b[2Jb", "<script>alert(1)</script>", '" onmouseover="x'],
    [True, True, False],
    {"attention": np.array([0.5, 0.3, 0.2], np.float32), "share": np.array([0.0, 0.0, 0.0], np.float32)},
    {"label": "x"},
    [("\x1b]0;title\x07<b>", 0.9)],
    {1: [(0, 3), (1, 3)]},
)


class Tags(HTMLParser):
    """The tags and attributes of a page, and its open tags."""

    def __init__(self):
        super().__init__()
        self.found, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_what_texts_and_labels_hold_is_escaped():
    for told in (shown.columns(HOSTILE), shown.coloured(HOSTILE, 80)):
        assert "\x1b[2J" not in told
        assert "\x1b]" not in told
        assert "\x07" not in told
    page = shown.page_head("<i>") + shown.page_section(1, HOSTILE) + shown.FOOT
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.found & {"script", "b", "i", "link", "img"}
    assert "onmouseover" not in tags.attributes
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_a_page_is_whole_and_needs_nothing_from_elsewhere(runs, tmp_path, capsys):
    trained, folder = runs("learned_norm")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    line = [str(folder), "--file", str(tmp_path / "a.txt"), "--html", str(tmp_path / "a.html")]
    assert explain.main(line) == 0
    assert capsys.readouterr().out == ""
    page = (tmp_path / "a.html").read_text()
    assert page.endswith("</html>\n")
    assert page.count("<section>") == len(TEXTS)
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    (one, *_) = explained(trained, TEXTS[:1])
    assert f'title="oak: attention {one.weights["attention"][2]:.4f}"' in page
    assert explain.main(line) == 2
    assert f"--html {tmp_path / 'a.html'} exists: choose another name." in capsys.readouterr().err
    assert (tmp_path / "a.html").read_text() == page


def test_nothing_is_left_of_a_page_that_failed(runs, tmp_path, capsys):
    _, folder = runs("learned_norm")
    (tmp_path / "a.jsonl").write_text('{"text": "cat"}\n{"text')
    line = [str(folder), "--file", str(tmp_path / "a.jsonl"), "--html", str(tmp_path / "a.html")]
    assert explain.main(line) == 65
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_nothing_is_printed_of_a_bad_file(runs, tmp_path, capsys):
    _, folder = runs("learned_norm")
    (tmp_path / "a.jsonl").write_text('{"text": "cat"}\n{"text')
    assert explain.main([str(folder), "--file", str(tmp_path / "a.jsonl")]) == 65
    assert capsys.readouterr().out == ""


def test_an_empty_file_is_no_text(runs, tmp_path, capsys):
    _, folder = runs("learned_norm")
    (tmp_path / "a.txt").write_text("")
    assert explain.main([str(folder), "--file", str(tmp_path / "a.txt")]) == 0
    assert capsys.readouterr().out == "toy, bag, learned_norm, p = 2.000\n"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("nowhere cat", 65, "nowhere does not exist"),
        ("RUN", 2, "give one or more texts"),
        ("RUN cat --file a.txt", 2, "give one or more texts"),
        ("RUN --file nowhere.txt", 65, "there is no file nowhere.txt"),
        ("RUN cat --html FILE", 2, "exists: choose another name."),
        ("RUN cat --html nowhere/a.html", 74, "nowhere"),
        ("LANGUAGE cat", 2, "the objective language_model has not one pooling"),
    ],
)
def test_hostile_lines(line, code, message, runs, tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("mine")
    language = runs("none", "--objective", "language_model")[1] if "LANGUAGE" in line else ""
    line = line.replace("RUN", str(runs("attention")[1])).replace("LANGUAGE", str(language))
    one_line(explain.main, line.split(), code, message)
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    assert (tmp_path / "FILE").read_text() == "mine"


def test_a_damaged_run(runs, tmp_path, capsys):
    folder = saved(runs("attention")[0], tmp_path / "run")
    (folder / "parameters.npz").write_bytes(b"\x80\x04\x95")
    assert explain.main([str(folder), "cat"]) == 65
    assert "parameters.npz has another size" in capsys.readouterr().err
