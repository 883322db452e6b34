"""Triples: convolutions against a dense matrix, tags against hand-made sentences, sets by hand, files that are bad."""

import functools
import io
import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.base.errors import DataError, UsageError
from experiments.data.triples import (
    NOWHERE,
    SHAPES,
    Facts,
    Mention,
    Triples,
    as_facts,
    find,
    mention_of,
    shape,
    split_words,
)
from experiments.encoders.dgcnn import DGCNN, Block, DGCNNOptions
from experiments.layers import spans
from experiments.layers.triple_sets import TripleSets
from experiments.objectives.triples import gated_cross_entropy
from experiments.run import build, exported
from experiments.run.config import parse_args
from experiments.run.trained import Trained
from experiments.tasks import TASKS, triples

# The block and the encoder.


def by_matrix(block: Block, states: np.ndarray, dilation: int) -> np.ndarray:
    """The block of one text by a matrix over all its words and features, in float64."""
    T, D = states.shape
    kernel = np.asarray(block.convolution.kernel[...], np.float64)
    matrix = np.zeros((T, 2 * D, T, D))
    for t in range(T):
        for k in range(3):
            source = t + (k - 1) * dilation
            if 0 <= source < T:
                matrix[t, :, source] = kernel[k].T
    values = np.einsum("tesd,sd->te", matrix, states) + np.asarray(block.convolution.bias[...], np.float64)
    gate = 1 / (1 + np.exp(-values[:, D:]))
    return (1 - gate) * states + gate * values[:, :D]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dilation", [2, 1, 5])
@pytest.mark.parametrize("length", [13, 4, 1])
def test_the_block_is_a_matrix(dilation, length):
    """Values, and the gradient under a random cotangent by finite differences of the matrix form."""
    random = np.random.default_rng(dilation)
    block = Block(4, dilation, rngs=nnx.Rngs(0))
    block.convolution.bias[...] = jnp.asarray(random.normal(size=8), jnp.float32)
    states, cotangent = random.normal(size=(2, length, 4))
    mask = jnp.ones((1, length), bool)
    value, back = jax.vjp(lambda x: block(x[None], mask, 0.0)[0], jnp.asarray(states, jnp.float32))
    np.testing.assert_allclose(value, by_matrix(block, states, dilation), rtol=2e-5, atol=2e-6)
    direction = random.normal(size=states.shape)
    ahead, behind = (by_matrix(block, states + step * direction, dilation) for step in (1e-5, -1e-5))
    (gradient,) = back(jnp.asarray(cotangent, jnp.float32))
    assert float((gradient * direction).sum()) == pytest.approx(((ahead - behind) / 2e-5 * cotangent).sum(), rel=1e-3)


def test_an_open_gate_is_the_convolution_and_a_closed_one_nothing():
    block = Block(3, 2, rngs=nnx.Rngs(0))
    states = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 3)), jnp.float32)
    mask = jnp.ones((1, 9), bool)
    linear = block.convolution(states)[..., :3]
    for logit, expected in ((-100.0, states), (100.0, linear), (0.0, (states + linear) / 2)):
        block.convolution.kernel[...] = block.convolution.kernel[...].at[..., 3:].set(0)
        block.convolution.bias[...] = block.convolution.bias[...].at[3:].set(logit)
        np.testing.assert_allclose(block(states, mask, 0.0), expected, rtol=1e-5, atol=1e-6)


class Ready:
    """Word vectors that are given."""

    features = 2

    def __init__(self, vectors):
        self.vectors = vectors

    def __call__(self, tokens, rngs=None):
        return self.vectors


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("cycles", "last"), [(1, 0), (3, 3), (0, 2)])
def test_the_receptive_field_is_what_the_options_say(cycles, last):
    """By the Jacobian of the state in the middle: not 0 inside the field, 0 outside; and 55 as the defaults are."""
    options = DGCNNOptions(features=4, cycles=cycles, last=last)
    T = 71
    mask, tokens = jnp.ones((1, T), bool), jnp.ones((1, T), jnp.int32)
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(1, T, 2)), jnp.float32)
    encoder = DGCNN(options, Ready(vectors), rngs=nnx.Rngs(0))
    graph, rest = nnx.split(encoder)

    @jax.jit
    def middle(x):
        encoder = nnx.merge(graph, rest)
        encoder.words = Ready(x)
        return encoder(tokens, mask)[0][0, T // 2]

    seen = np.abs(np.asarray(jax.jacrev(middle)(vectors))).sum(axis=(0, 1, 3)) > 0
    half = options.field // 2
    np.testing.assert_array_equal(np.flatnonzero(seen), np.arange(T // 2 - half, T // 2 + half + 1))
    assert DGCNNOptions().field == 55


# Words and what they carry.

JOINED = "John Smith of New York , New York works for Acme Corp. of York"


def test_words_and_shapes():
    text = "U.S. Sen. O'Neil's 50-to--60 (a_b) \u00c9t\u00e9 \u0391\u03a3"
    assert split_words(text, "spaces") == text.split()
    expected = ["U.S.", "Sen", ".", "O'Neil", "'s", "50", "-", "to", "--", "60", "(", "a", "_", "b", ")", "Été", "ΑΣ"]
    assert split_words(text, "marks") == expected
    names = {"the": "lower", "The": "Capital", "THE": "UPPER", "A": "U", "McKay": "miXed", "12.5": "12", "3rd": "a1"}
    assert {word: SHAPES[shape(word)] for word in names} == names
    assert SHAPES[shape("--")] == "mark"
    assert find(["a", "b", "a", "b", "c"], ["a", "b", "c"]) == 2
    assert find(["a"], []) == find(["a"], ["b"]) == find([], ["a"]) == NOWHERE


def test_every_character_that_is_no_space_is_in_one_word():
    characters = "".join(map(chr, range(32, 0x2100)))
    assert "".join(split_words(characters, "marks")) == "".join(characters.split())


def test_rows_and_known_triples():
    words = JOINED.split()
    john, york, acme = (mention_of(words, part.split()) for part in ("John Smith", "New York", "Acme Corp."))
    assert (john[1:3], york[1:3], acme[1:3]) == ((0, 1), (3, 4), (10, 11))
    gone = mention_of(words, ["Boston"])
    said = [(john, "lives", york), (john, "works", acme), (john, "lives", york), (gone, "lives", york)]
    facts = as_facts(said, [york, acme])
    targets = Triples.fit({"train": [facts], "test": []})
    assert targets.predicates == ("lives", "works")
    rows = targets.encode([facts, Facts((), ())])
    assert rows.shape == (2, 8, 7)
    there = [[0, 1, 0, 0, 3, 4, 0], [0, 1, 0, 1, 10, 11, 0], [-1, -1, 0, 0, 3, 4, 0], [3, 4, 0, *[-1] * 4]]
    assert rows[0, :4].tolist() == there
    assert rows[0, 4].tolist() == [10, 11, 0, *[-1] * 4]
    assert (rows[0, 5:] == NOWHERE).all()
    assert (rows[1] == NOWHERE).all()
    found = targets.seen_in(["Acme", "Corp.", "and", "John", "Smith"])
    assert found == [(3, 4, 0, 1, 0, 1, 0)]
    assert not targets.seen_in(["Acme", "Corp", "and", "John", "Smith"]), "not the same words"
    unheard = as_facts([(john, "left", york)])
    assert targets.encode([unheard])[0, 0].tolist() == [0, 1, 0, 2, 3, 4, 0], "a number beyond those that are known"
    assert Triples(json.loads(json.dumps(targets.to_json()))).known == targets.known


# Tags and back.


@functools.cache
def model(*options: str):
    """The form of an objective of two predicates and two types, without numbers."""
    config = parse_args(
        ["--task", "conll04", "--encoder", "bag", "--pooler", "mean", "--encode.features", "8", *options]
    )
    sizes = {"words": 9, "predicates": 2, "kinds": 2}
    return nnx.eval_shape(lambda: build.objective(config, sizes)[0])


@functools.cache
def reader(*options: str):
    """What is read from the tags of rows of triples, compiled."""
    objective = model(*options)

    @jax.jit
    def read(given, mask):
        return objective.read_triples(
            spans.subject_tags(given, mask),
            lambda subjects: spans.object_tags(given, subjects, mask, 2),
            jax.nn.one_hot(spans.kinds(given, mask), 3),
            mask,
        )["triples"]

    return read


def decoded(rows: list[tuple[int, ...]], length: int, *options: str) -> set[tuple[int, ...]]:
    """The triples that are read from the tags of triples in an array of so many words."""
    given = np.array(rows + [(NOWHERE,) * 7] * (6 - len(rows)))
    (found,) = reader(*options)(given[None], np.ones((1, length), bool))
    return {tuple(row) for row in np.asarray(found).tolist() if row[0] != NOWHERE}


ENTITY = (NOWHERE,) * 4
READABLE = {
    "one": [(0, 1, 0, 1, 4, 5, 1), (4, 5, 1, *ENTITY)],
    "two objects": [(0, 1, 0, 1, 4, 5, 1), (0, 1, 0, 1, 7, 7, 1), (4, 5, 1, *ENTITY), (7, 7, 1, *ENTITY)],
    "two predicates of a pair": [(0, 0, 0, 0, 3, 3, 0), (0, 0, 0, 1, 3, 3, 0), (3, 3, 0, *ENTITY)],
    "an object that is a subject": [(0, 1, 0, 0, 3, 4, 1), (3, 4, 1, 1, 6, 6, 0), (6, 6, 0, *ENTITY)],
    "both directions": [(0, 0, 0, 0, 2, 2, 0), (2, 2, 0, 0, 0, 0, 0)],
    "itself": [(2, 3, 1, 0, 2, 3, 1)],
    "objects of two subjects share a begin": [(0, 0, 0, 0, 4, 4, 1), (2, 2, 0, 0, 4, 6, 1), (4, 6, 1, *ENTITY)],
    "subjects that end together": [(2, 5, 0, 0, 7, 7, 0), (5, 5, 0, 1, 7, 7, 0), (7, 7, 0, *ENTITY)],
}


@pytest.mark.parametrize("case", READABLE)
def test_what_is_tagged_is_read_back(case):
    rows = READABLE[case]
    assert decoded(rows, 9) == {row for row in rows if row[3] != NOWHERE}


def test_what_the_scheme_cannot_say():
    """Mentions that begin together, and one inside another one, of one subject and predicate; what is cut; too many."""
    nested = [(0, 0, 0, 0, 3, 6, 1), (0, 0, 0, 0, 4, 4, 1), (3, 6, 1, *ENTITY)]
    assert decoded(nested, 9) == {(0, 0, 0, 0, 3, 4, 1), (0, 0, 0, 0, 4, 4, 1)}, "a begin has the nearest end"
    together = [(0, 0, 0, 0, 3, 6, 1), (0, 0, 0, 0, 3, 4, 1), (3, 6, 1, *ENTITY)]
    assert decoded(together, 9) == {(0, 0, 0, 0, 3, 4, 1)}
    cut = [(0, 0, 0, 0, 3, 6, 1), (3, 6, 1, 1, 0, 0, 0), (NOWHERE, NOWHERE, 0, 0, 3, 3, 1)]
    assert decoded(cut, 5) == set()
    many = [(k, k, 0, 0, 8, 8, 0) for k in range(6)]
    assert len(decoded(many, 9, "--head.subjects", "4")) == 4
    assert len(decoded(many, 9, "--head.most", "3")) == 3


def test_reading_by_brute_force():
    """Begins above one mark, nearest ends above the other, the largest products first."""
    random = np.random.default_rng(0)
    probabilities = random.random((40, 7, 2)).astype(np.float32)
    mask = np.arange(7) < random.integers(0, 8, (40, 1))
    found, chances = jax.jit(lambda *arrays: spans.read(*arrays, 0.5, 0.4, 3))(probabilities, mask)
    for row, real in enumerate(mask):
        begins, ends = probabilities[row, : real.sum()].T
        pairs = {}
        for i in np.flatnonzero(begins > 0.5):
            after = [j for j in range(i, len(ends)) if ends[j] > 0.4]
            if after:
                pairs[i, after[0]] = begins[i] * ends[after[0]]
        best = sorted(pairs, key=pairs.get, reverse=True)[:3]
        assert [tuple(span) for span in np.asarray(found[row]).tolist() if span[0] != NOWHERE] == best
        np.testing.assert_allclose(chances[row, : len(best)], [pairs[pair] for pair in best], rtol=1e-6)


def test_distances_inside_and_types():
    given, mask = jnp.asarray([[[2, 3], [NOWHERE, NOWHERE]]]), jnp.asarray([[True] * 6 + [False]])
    assert spans.distances(given, 7)[0, 0].tolist() == [-2, -1, 0, 0, 1, 2, 3]
    assert spans.inside(given, mask)[0].tolist() == [[False] * 2 + [True] * 2 + [False] * 3, [False] * 7]
    rows = jnp.asarray([[(0, 1, 1, 0, 3, 3, 0), (3, 3, 0, *ENTITY), (NOWHERE,) * 7]])
    assert spans.kinds(rows, mask)[0].tolist() == [2, 2, 0, 1, 0, 0, 0]
    several = jnp.asarray([[[2, 3], [1, 1], [2, 3], [NOWHERE, NOWHERE], [1, 2]]])
    assert spans.different(several, 4)[0].tolist() == [[2, 3], [1, 1], [1, 2], [NOWHERE, NOWHERE]]


def test_the_cross_entropy_behind_a_gate():
    """Against the quotient in float64, and finite with its gradient where that is rounded away."""
    logits, gates = np.random.default_rng(0).normal(scale=3, size=(2, 50))
    q = 1 / (1 + np.exp(-logits)) / (1 + np.exp(-gates))
    for tag, expected in ((1, -np.log(q)), (0, -np.log(1 - q))):
        found = gated_cross_entropy(jnp.float32(logits), jnp.float32(gates), jnp.full(50, float(tag)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    far = jnp.asarray([200.0, -200.0, 200.0, -200.0])
    for tag in (0.0, 1.0):
        value, slope = jax.value_and_grad(lambda x, tag=tag: gated_cross_entropy(x, far[::-1], jnp.full(4, tag)).sum())(
            far
        )
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


# Sets of triples.


def sets(truth, found, known=(), forms=None, weight=1.0) -> dict[str, float]:
    def rows(some):
        return np.array([*some, (NOWHERE,) * 7])[None]

    forms = np.arange(9) if forms is None else np.array(forms)
    return TripleSets.of(rows(truth), rows(found), rows(truth), rows(known), forms[None], np.full(1, weight)).compute()


def test_scores_by_hand():
    one, two, three = (0, 0, 0, 0, 2, 2, 1), (0, 0, 0, 1, 3, 4, 1), (5, 5, 0, 0, 6, 6, 1)
    found = sets([one, two], [one, one, three])
    assert found["precision"] == found["recall"] == found["f1"] == 0.5, "what is said twice counts once"
    assert sets([one, two], [])["f1"] == sets([], [one])["f1"] == sets([], [])["f1"] == 0
    assert sets([one], [one], weight=0.0)["f1"] == 0
    other = (*one[:6], 0)
    assert sets([one], [other])["f1"] == 1
    assert sets([one], [other])["typed_f1"] == 0
    assert sets([one, two], [one, two])["ceiling_f1"] == 1
    parted = sets([one, two], [one, three], known=[one])
    assert (parted["seen_f1"], parted["unseen_f1"], parted["unseen_recall"]) == (1, 0, 0)


def test_equal_words_are_the_same_triple_wherever_they_stand():
    forms = [0, 1, 2, 0, 1, 5, 2, NOWHERE, NOWHERE]  # a b c a b d c
    assert sets([(0, 1, 0, 0, 2, 2, 0)], [(3, 4, 0, 0, 6, 6, 0)], forms=forms)["f1"] == 1
    assert sets([(0, 1, 0, 0, 2, 2, 0)], [(3, 4, 0, 0, 5, 5, 0)], forms=forms)["f1"] == 0
    twice = [(0, 1, 0, 0, 2, 2, 0), (3, 4, 0, 0, 6, 6, 0)]
    assert sets(twice, twice[:1], forms=forms)["recall"] == 1
    gone = [(NOWHERE, NOWHERE, 0, 0, 2, 2, 0), (0, 1, 0, 0, 2, 2, 0)]
    assert sets(gone, gone[1:], forms=forms)["recall"] == 0.5, "what is not in the text counts"
    assert sets(gone, gone[1:], forms=forms)["ceiling_f1"] == pytest.approx(1), "of what it is given"


def test_batches_of_any_width_are_added():
    one = (0, 0, 0, 0, 2, 2, 1)
    parts = [
        TripleSets.of(*(np.array([[row]]) for row in (one, found, one, one)), np.arange(width)[None], np.ones(1))
        for found, width in ((one, 4), ((NOWHERE,) * 7, 9))
    ]
    assert (parts[0] + parts[1]).compute()["recall"] == 0.5


# Files.


CONLL = """#doc 1
0\tMrs.\tB-Peop\t['N']\t[0]
1\tRose\tI-Peop\t['Live_In', 'Work_For']\t[3, 6]
2\tof\tO\t['N']\t[2]
3\tPeru\tB-Loc\t['N']\t[3]
4\tBolivia\tB-Loc\t['Located_In']\t[3]
5\tUN\tI-Org\t['N']\t[5]
6\tTrade\tI-Org\t['N']\t[6]
#doc 2
0\tNobody\tO\t['N']\t[0]
"""


def archive(folder: Path, cut=0, **contents) -> Path:
    """An archive of the three files of CoNLL04."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for part in ("train", "dev", "test"):
            content = contents.get(part, CONLL)
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"CoNLL04/{part}.txt")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    (folder / triples.ARCHIVE.name).write_bytes(packed.getvalue()[: len(packed.getvalue()) - cut])
    return folder


def task_of(folder: Path, *options: str):
    config = parse_args(["--task", "conll04", "--archives", str(folder), *options])
    return TASKS["conll04"](config.data)


def test_sentences_of_conll04(tmp_path):
    """Two entities beside one another, one that begins at a tag I, and relations that name the last words."""
    task = task_of(archive(tmp_path))
    rose, peru, bolivia = (
        Mention("Mrs. Rose", 0, 1, "Peop"),
        Mention("Peru", 3, 3, "Loc"),
        Mention("Bolivia", 4, 4, "Loc"),
    )
    trade = Mention("UN Trade", 5, 6, "Org")
    first, second = [example for example in TASKS["conll04"].examples(task.codec.options) if example.split == "test"]
    assert first.text == "Mrs. Rose of Peru Bolivia UN Trade"
    assert {(first.target.mentions[s], p, first.target.mentions[o]) for s, p, o in first.target.triples} == {
        (rose, "Live_In", peru),
        (rose, "Work_For", trade),
        (bolivia, "Located_In", peru),
    }
    assert set(first.target.mentions) == {rose, peru, bolivia, trade}
    assert second.target == Facts((), ())
    assert task.describe()["train"]["triples"] == 3
    assert task.describe()["train"]["triples_not_found"] == 0
    (batch,) = task.batches("test")
    assert batch.shapes[0, :3].tolist() == [SHAPES.index("Capital"), SHAPES.index("Capital"), SHAPES.index("lower")]
    by_marks = task_of(tmp_path, "--data.words", "marks")
    rows = next(by_marks.batches("test")).targets[0]
    assert [0, 2, 2, 0, 4, 4, 0] in rows.tolist(), "Mrs. is two words there"


def test_a_head_that_is_no_entity_counts_and_is_not_found(tmp_path):
    broken = CONLL.replace("[3, 6]", "[2, 60]")
    task = task_of(archive(tmp_path, train=broken))
    assert task.describe()["train"]["triples"] == 3
    assert task.describe()["train"]["triples_not_found"] == 2


BAD_SENTENCES = {
    "cut": ({"cut": 30}, "CoNLL04.tar.gz cannot be read"),
    "wrong columns": ({"train": CONLL.replace("\tB-Loc", "", 1)}, "line 5: found .3.*Peru"),
    "no lists": ({"dev": CONLL.replace("['N']", "N", 1)}, "dev.txt, line 2: found"),
    "code": ({"dev": CONLL.replace("['N']", "[open('x')]", 1)}, "expected a number, a word"),
    "wrong number": ({"dev": CONLL.replace("4\tBol", "5\tBol")}, "line 6: found"),
    "fewer heads": ({"test": CONLL.replace("[3, 6]", "[3]")}, "line 3: found 2 relations and 1 heads"),
    "no UTF-8": ({"test": CONLL.encode() + b"\xff"}, "expected text in UTF-8"),
    "an empty split": ({"dev": ""}, "the validation split has no examples"),
    "no triples": ({"train": "#doc 1\n0\tNobody\tO\t['N']\t[0]\n"}, "no text of the train split has a triple"),
}


@pytest.mark.parametrize("case", BAD_SENTENCES)
def test_bad_sentences_are_one_line(case, tmp_path):
    given, message = BAD_SENTENCES[case]
    with pytest.raises(DataError, match=message) as error:
        task_of(archive(tmp_path, **given))
    assert "\n" not in str(error.value)


ROWS = [
    {"text": f"Rose lives in town {n} .", "triple_list": [["Rose", "lives in", f"town {n}"]], "id": n}
    for n in range(60)
]


def file_task(path: Path, *options: str):
    return TASKS["triple_file"](parse_args(["--task", "triple_file", "--path", str(path), *options]).data)


@pytest.mark.parametrize("form", ["array", "lines"])
def test_files_of_triples(form, tmp_path):
    lines = "\n".join(map(json.dumps, ROWS))
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + (json.dumps(ROWS, indent=1) if form == "array" else lines), encoding="utf-8")
    task = file_task(path)
    assert sum(len(corpus) for corpus in task.splits.values()) == 60
    assert (task.splits["train"].targets[:, 0] == [0, 0, 0, 0, 3, 4, 0]).all()
    (tmp_path / "t.json").write_text(json.dumps([{"text": "A b", "triple_list": [["A", "lives in", "c"]]}]))
    apart = file_task(path, "--data.test", str(tmp_path / "t.json"))
    assert [len(corpus) for corpus in apart.splits.values()][0::2] == [60 - len(apart.splits["validation"]), 1]
    assert apart.describe()["test"]["triples_not_found"] == 1


BAD_TRIPLES = {
    "no JSON": (b'[{"text": ', "a.json is not JSON"),
    "a cut line": (json.dumps(ROWS[0]).encode() + b'\n{"text": "a', "a.json, row 2 is not JSON"),
    "deep": (b"[" * 100_000, "a.json is not JSON"),
    "other names": (b'[{"sentence": "a"}]', 'row 1: found "{.sentence.: .a.}", expected an object with "text"'),
    "pairs": (b'{"text": "a b", "triple_list": [["a", "b"]]}', "row 1: found .*, a list of .subject, predicate"),
    "an empty subject": (b'{"text": "a b", "triple_list": [[" ", "p", "b"]]}', "row 1: found"),
    "numbers": (b'{"text": 3, "triple_list": []}', "row 1: found"),
    "no UTF-8": (b'{"text": "\xff", "triple_list": []}', "expected text in UTF-8"),
    "nothing": (b"", "the train split has no examples"),
}


@pytest.mark.parametrize("case", BAD_TRIPLES)
def test_bad_files_of_triples_are_one_line(case, tmp_path):
    content, message = BAD_TRIPLES[case]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        file_task(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_no_file_and_sentences():
    with pytest.raises(DataError, match="no file is given: --task triple_file --path"):
        TASKS["triple_file"](parse_args(["--task", "triple_file"]).data)
    with pytest.raises(UsageError, match="choose an encoder that reads words"):
        TASKS["triple_file"](parse_args(["--task", "triple_file", "--encoder", "han"]).data)
    with pytest.raises(UsageError, match="unknown pooler 'maxi'"):
        model("--head.gate-pooler", "maxi")


# A whole model.


def test_predictions_are_words_of_the_text(tmp_path):
    trained = Trained(None, model(), task_of(archive(tmp_path)).codec)
    predicted = {
        "triples": np.array([[[0, 1, 2, 1, 3, 3, 0], [NOWHERE] * 7]], np.int32),
        "probability": np.array([[0.75, 0.0]], np.float32),
    }
    (record,) = trained.readable({"predictions": predicted}, iter(["Mrs.  Rose\tof Peru !"]))
    assert record == {
        "triples": [
            {
                "subject": "Mrs.  Rose",
                "predicate": "Located_In",
                "object": "Peru",
                "subject_type": "Peop",
                "object_type": "Loc",
                "probability": 0.75,
            }
        ]
    }


@pytest.mark.slow
def test_texts_are_predicted_and_an_export_is_refused(tmp_path):
    codec = task_of(archive(tmp_path)).codec
    config = parse_args(["--task", "conll04", "--encoder", "bag", "--pooler", "mean", "--encode.features", "8"])
    trained = Trained(config, build.objective(config, codec.sizes)[0], codec)
    texts = ["Mrs. Rose of Peru", "", "a"] * 30
    assert len([*trained.predict(texts)]) == 90, "more than a batch"
    with pytest.raises(UsageError, match="the objective triples predicts what an export has no names for"):
        exported._names(trained, codec)


def test_each_slot_has_its_pooler():
    one = model("--pooler", "learned_norm", "--head.sentence-pooler", "max", "--head.subject-pooler", "attention")
    found = [type(pooler).__name__ for pooler in (one.pooler, one.gate_pooler, one.subject_pooler)]
    assert found == ["Max", "LearnedNorm", "Attention"]
    assert nnx.eval_shape(lambda model: model.p, one).shape == (1,)
    assert nnx.eval_shape(lambda model: model.p, model("--pooler", "learned_norm")).shape == (3,)
    assert model().p is None
