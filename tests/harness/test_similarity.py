"""Losses with a margin against an independent program, ranks against brute force, pair files, groups of captions."""

import io
import json
import zipfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import analyse
from experiments.base.errors import DataError
from experiments.data import pairs
from experiments.data.pairs import Pair
from experiments.data.targets import Groups
from experiments.layers import margins
from experiments.objectives import similarity
from experiments.objectives.similarity import SimilarityOptions, Vectors, ranks
from experiments.run import exported
from experiments.run.config import parse_args
from experiments.tasks import TASKS, captions
from tests.harness import make_margins
from tests.harness.untrained import saved, untrained

GOLDEN = dict(np.load(make_margins.PATH))
PSI = {
    "softmax": margins.softmax,
    "am_softmax": partial(margins.am_softmax, margin=make_margins.MARGIN),
    "arcface": partial(margins.arcface, margin=make_margins.RADIANS),
    **{f"a_softmax_{m}": partial(margins.a_softmax, multiple=m) for m in make_margins.MULTIPLES},
}
ALL = PSI | {"simpler_a_softmax": margins.simpler_a_softmax}
ANGLES = np.linspace(0, np.pi, 2001)


def golden(dtype=np.float32):
    """Vectors, classes and labels."""
    return *(jnp.array(GOLDEN[part], dtype) for part in ("vectors", "classes")), jnp.array(GOLDEN["labels"])


def losses_of(psi, vectors, classes, labels):
    cosines = margins.unit(vectors) @ margins.unit(classes, axis=1).T
    return margins.margin_loss(cosines, labels, psi, make_margins.SCALE)


def test_the_golden_inputs_are_those_of_the_program():
    for name, array in make_margins.inputs().items():
        np.testing.assert_allclose(GOLDEN[name], array, rtol=1e-12)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", PSI)
def test_losses_and_gradients_are_those_of_an_independent_program(name):
    with jax.enable_x64(True):
        vectors, classes, labels = golden(np.float64)
        values, back = jax.vjp(lambda vectors: losses_of(PSI[name], vectors, classes, labels), vectors)
        np.testing.assert_allclose(values, GOLDEN[f"{name}/value"], rtol=1e-7, atol=1e-10)
        (gradient,) = back(jnp.array(GOLDEN["cotangents"]))
        expected = GOLDEN[f"{name}/gradient"]  # SphereFace multiplies by the length of a vector, which is 1 here
        along = (expected * GOLDEN["vectors"]).sum(axis=1, keepdims=True) * GOLDEN["vectors"]
        np.testing.assert_allclose(gradient, expected - along, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(losses_of(PSI[name], *golden()), GOLDEN[f"{name}/value"], rtol=2e-4, atol=2e-4)


def test_psi_by_angles():
    """Multiples of angles by trigonometry, and cos(theta + m) up to the turn at theta = pi - m."""
    with jax.enable_x64(True):
        cosines = jnp.cos(ANGLES)
        simpler = np.minimum(np.cos(4 * ANGLES), np.cos(ANGLES))
        np.testing.assert_allclose(margins.simpler_a_softmax(cosines), simpler, atol=1e-12)
        for m in (1, 2, 3, 4, 7):
            k = np.minimum(np.floor(m * ANGLES / np.pi), m - 1)
            np.testing.assert_allclose(margins.a_softmax(cosines, m), (-1) ** k * np.cos(m * ANGLES) - 2 * k, atol=1e-6)
        turn = np.pi - 0.5
        turned = np.where(turn < ANGLES, np.cos(ANGLES) - 0.5 * np.sin(0.5), np.cos(ANGLES + 0.5))
        found = margins.arcface(cosines, 0.5)
        clear = np.abs(ANGLES - turn) > 1e-6
        np.testing.assert_allclose(found[clear], turned[clear], atol=1e-7)
        for name, psi in ALL.items():
            assert (np.asarray(psi(cosines)) <= np.asarray(cosines) + 1e-12).all(), name


def test_without_a_margin_all_are_the_softmax():
    expected = losses_of(margins.softmax, *golden())
    for psi in (
        partial(margins.am_softmax, margin=0.0),
        partial(margins.arcface, margin=0.0),
        partial(margins.a_softmax, multiple=1),
    ):
        np.testing.assert_allclose(losses_of(psi, *golden()), expected, rtol=1e-4, atol=1e-4)


def test_the_loss_rises_with_the_margin():
    found = [np.asarray(losses_of(partial(margins.am_softmax, margin=m), *golden())) for m in (0.0, 0.1, 0.7)]
    for less, more in pairwise(found):
        assert (more >= less).all()
        assert (more > less).any()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ALL)
def test_losses_are_not_negative_and_gradients_finite_in_float32(name):
    """A thousand classes, the right one at every cosine up to 1 and down to -1."""
    random = np.random.default_rng(0)
    ahead = np.float32(np.concatenate([[1, -1, 1 + 1e-7, 0], 1 - np.geomspace(1e-7, 1.9, 60)]))
    cosines = np.float32(random.uniform(-0.3, 0.3, (len(ahead), 1000)))
    labels = random.integers(0, 1000, len(ahead))
    cosines[np.arange(len(ahead)), labels] = ahead

    def loss(cosines):
        return margins.margin_loss(cosines, jnp.array(labels), ALL[name], 30.0)

    values, back = jax.vjp(loss, jnp.array(cosines))
    assert (np.asarray(values) >= 0).all()
    (gradient,) = back(jnp.float32(random.normal(size=len(ahead))))
    assert np.isfinite(gradient).all()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        cosines = jnp.linspace(-0.97, 0.98, 41)
        slope = jax.vmap(jax.grad(lambda c: ALL[name](c)))(cosines)
        step = 1e-6
        expected = (ALL[name](cosines + step) - ALL[name](cosines - step)) / (2 * step)
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)


def test_a_vector_without_direction():
    vectors = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(margins.unit(vectors), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    slope = jax.grad(lambda x: (margins.unit(x) * jnp.array([[1.0, 2.0], [3.0, 4.0]])).sum())(vectors)
    assert np.isfinite(slope).all()
    assert not slope[1].any()


def test_every_loss_has_a_psi():
    for name in ("softmax", "am_softmax", "a_softmax", "simpler_a_softmax", "arcface"):
        assert float(SimilarityOptions(loss=name).psi(jnp.array(0.5))) <= 0.5


def brute_force(vectors, groups):
    """How many texts of other groups are at least as near as the nearest of the same group, text by text."""
    found = []
    for query, mine in zip(vectors, groups, strict=True):
        cosines = [float(query @ other) for other in vectors]
        others = [n for n in range(len(groups)) if vectors[n] is not query]
        same = [cosines[n] for n in others if groups[n] == mine]
        if same:
            found.append(sum(cosines[n] >= max(same) for n in others if groups[n] != mine))
    return found


def test_ranks_are_those_of_brute_force(monkeypatch):
    """In blocks of any size, with equal vectors and with texts that are alone in their group."""
    random = np.random.default_rng(0)
    vectors = [np.float64(v) for v in random.integers(-2, 3, (60, 3))]
    groups = random.integers(0, 25, 60)
    assert (np.bincount(groups) == 1).any()
    expected = brute_force(vectors, groups)
    stacked = np.stack(vectors)
    for size in (1, 7, 60, 512):
        monkeypatch.setattr(similarity, "QUERIES_AT_ONCE", size)
        np.testing.assert_array_equal(ranks(lambda part: stacked[part] @ stacked.T, groups), expected)


def test_shares_by_hand():
    """Four texts on a circle: the first two are a group and nearest to one another, of the others each is alone."""
    angles = np.radians([0, 10, 90, 100, 95])
    vectors, groups = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1, 2])
    numbers = Vectors(vectors, groups, np.ones(5)).compute()
    assert numbers == {"top1": 0.5, "top5": 1, "top10": 1}, "the text between them is nearer to both of group 1"
    assert Vectors(vectors, groups, np.array([1, 1, 1, 1, 0])).compute()["top1"] == 1, "the text between is no text"
    assert Vectors(vectors[:1], groups[:1], np.ones(1)).compute()["top10"] == 0, "nothing can be found"
    collapsed = Vectors(np.ones((40, 2)), np.arange(40) % 8, np.ones(40)).compute()
    assert collapsed == {"top1": 0, "top5": 0, "top10": 0}, "equal vectors find nothing"


STS = 'main\tMSR\t2012\t1\t2.5\tA girl.\tA "boy.\nmain\tMSR\t2012\t2\t5\tone\tan other\tmore\tcolumns\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (STS, [Pair("A girl.", 'A "boy.', 2.5), Pair("one", "an other", 5)]),
        (
            "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment\n1\ta\tb\t4.5\tX\n\n2\tc\td\t1\tY\n",
            [Pair("a", "b", 4.5), Pair("c", "d", 1)],
        ),
        ('score,sentence1,sentence2\n0.5,"a, b",c\n1,d,e\n', [Pair("a, b", "c", 0.5), Pair("d", "e", 1)]),
    ],
)
def test_pair_files(tmp_path, content, expected):
    (tmp_path / "a.csv").write_text("\ufeff" + content, encoding="utf-8")
    assert pairs.read(tmp_path / "a.csv") == expected
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.csv", content)
    assert pairs.read(tmp_path / "a.zip" / "x" / "a.csv") == expected


BAD_PAIRS = {
    "wrong columns": (b"a,b\nc,d\n", "row 1: found 2 columns, expected 7 or more, or a header such as sentence1"),
    "a short row": (b"score,text1,text2\n1,a\n", "row 2: found 2 columns, expected 3"),
    "a score that is none": (b"score,text1,text2\nhigh,a,b\n", "row 2, column 1: found 'high', expected a score"),
    "a missing text": (b"score,text1,text2\n1,,b\n", "row 2: a text is missing"),
    "no UTF-8": (b"score,text1,text2\n1,\xff\xfe,b\n", "expected text in UTF-8"),
    "no rows": (b"", "a.csv has no rows"),
    "one score": (b"score,text1,text2\n1,a,b\n1,c,d\n", "all 2 pairs of a.csv have the score 1.0"),
    "zero bytes": (b"score,text1,text2\n1,a\0,b\n", "it holds zero bytes"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pair_files_are_one_line(case, tmp_path):
    content, message = BAD_PAIRS[case]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        pairs.read(tmp_path / "a.csv")


def flickr(folder: Path, photographs=12, tokens=None, cut=0, **lists) -> Path:
    """An archive of a few photographs with three captions each."""
    names = [f"{n}.jpg" for n in range(photographs)]
    listed = {"train": names[:6], "dev": names[6:8], "test": names[8:10], **lists}
    lines = "".join(f"{name}#{k}\tA {name} of {k} .\n" for name in names for k in range(3))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Flickr8k.token.txt", lines if tokens is None else tokens)
        for part, some in listed.items():
            archive.writestr(f"Flickr_8k.{part}Images.txt", "".join(f"{name}\n" for name in some))
    (folder / captions.ARCHIVE.name).write_bytes(packed.getvalue()[: len(packed.getvalue()) - cut])
    return folder


def task_of(folder: Path):
    config = parse_args(["--task", "flickr8k", "--archives", str(folder)])
    return TASKS["flickr8k"](config.data)


def test_captions_are_groups_and_no_group_is_in_two_splits(tmp_path):
    task = task_of(flickr(tmp_path))
    assert task.codec.sizes["groups"] == 6
    assert {split: len(corpus) for split, corpus in task.splits.items()} == {"train": 18, "validation": 6, "test": 6}
    targets = {split: sorted(corpus.targets.tolist()) for split, corpus in task.splits.items()}
    assert targets["train"] == sorted([*range(6)] * 3)
    assert targets["test"] == [6, 6, 6, 7, 7, 7], "beyond the groups that are trained"


BAD_CAPTIONS = {
    "cut": ({"cut": 40}, "Flickr8k_text.zip cannot be read"),
    "wrong columns": ({"tokens": "0.jpg A caption\n"}, "line 1: found '0.jpg A caption', expected the name of a"),
    "no UTF-8": ({"tokens": b"0.jpg#0\t\xff\n"}, "expected text in UTF-8"),
    "no captions": ({"tokens": ""}, "line 1: Flickr8k.token.txt has no caption of '0.jpg'"),
    "no groups": ({"train": []}, "the train split has no examples"),
    "a photograph that is not there": ({"dev": ["77.jpg"]}, "has no caption of '77.jpg'"),
    "a group in two splits": ({"dev": ["0.jpg"]}, "the group '0.jpg' is in the train split and in another"),
}


@pytest.mark.parametrize("case", BAD_CAPTIONS)
def test_bad_captions_are_one_line(case, tmp_path):
    given, message = BAD_CAPTIONS[case]
    flickr(tmp_path, **given)
    with pytest.raises(DataError, match=message) as error:
        task_of(tmp_path)
    assert "\n" not in str(error.value)


def test_groups_that_cannot_be_learned():
    whole = {"train": ["a", "a", "b", "b"], "validation": ["c", "c"], "test": ["d", "d"]}
    assert Groups.fit(whole).encode(["b", "d", "c", "d"]).tolist() == [1, 3, 2, 3]
    with pytest.raises(DataError, match="the test split has 1 groups of one text, as 'd'"):
        Groups.fit(whole | {"test": ["d", "e", "e"]})
    with pytest.raises(DataError, match="every text of the train split is of the group 'a'"):
        Groups.fit(whole | {"train": ["a", "a"]})


def test_the_analysis_of_pairs_is_the_correlation_of_cosines(tmp_path, capsys):
    """Spearman of the cosines of the vectors that `answers` gives, with and without pairs of known texts."""
    pytest.importorskip("sklearn")
    trained = untrained("--pooler", "mean")
    run = saved(trained, tmp_path / "run")
    known = TASKS["toy"].examples(None)[3].text
    texts = ["the small oak", "a dog", "saw of a fern", known, "moss in a vice", "crow"]
    rows = [(one, other, (3 * a + 5 * b) % 7) for a, one in enumerate(texts) for b, other in enumerate(texts) if a < b]
    (tmp_path / "p.csv").write_text("score,text1,text2\n" + "".join(f"{s},{a},{b}\n" for a, b, s in rows))
    line = [str(run), "--analysis", "similarity", "--split", "train", "--ask.pairs", str(tmp_path / "p.csv")]
    split = {example.text for example in TASKS["toy"].examples(None) if example.split == "train"}
    assert analyse.main(line) == 0
    found = json.loads((run / "analyses" / "similarity-train.json").read_text())
    vectors = dict(zip(texts, np.concatenate([x["pooled"] for x in trained.answers(texts)]), strict=True))
    cosines = [
        float(vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])) for a, b, _ in rows
    ]
    model, counts = found["table"]
    assert model["Spearman"] == pytest.approx(stats.spearmanr(cosines, [s for *_, s in rows]).statistic, abs=1e-6)
    kept = [n for n, (a, b, _) in enumerate(rows) if not {a, b} & split]
    assert model["without a text of the split"] == len(kept) < len(rows)
    expected = stats.spearmanr(np.array(cosines)[kept], np.array([s for *_, s in rows])[kept]).statistic
    assert model["Spearman of these"] == pytest.approx(expected, abs=1e-6)
    assert counts["vectors"] == "tf-idf"
    assert found["options"]["ask"]["pairs"] == [str(tmp_path / "p.csv")]


def test_the_numbers_of_a_vector_have_names_in_an_export():
    class Model:
        def answers(self, texts):
            yield {"predictions": {"vector": np.zeros((1, 3)), "length": np.zeros(1)}}

    assert exported._names(Model(), None) == ["length", "vector.0", "vector.1", "vector.2"]


def test_the_analysis_needs_pairs(tmp_path, one_line):
    run = saved(untrained("--pooler", "mean"), tmp_path / "run")
    one_line(analyse.main, [str(run), "--analysis", "similarity"], 2, "give one or more files of scored pairs")
    one_line(
        analyse.main, [str(run), "--analysis", "similarity", "--ask.pairs", "none.csv"], 65, "there is no file none.csv"
    )
