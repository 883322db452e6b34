"""Communities against lengths that others published, planted groups, and scikit-learn; the intents of CLINC150."""

import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("infomap")
networkx = pytest.importorskip("networkx")
metrics = pytest.importorskip("sklearn.metrics")

from experiments import analyse  # noqa: E402
from experiments.analyses.communities import Links, code_length, neighbour_graph, partition  # noqa: E402
from experiments.base.errors import DataError  # noqa: E402
from experiments.tasks import TASKS, intents  # noqa: E402
from tests.harness.untrained import saved, untrained  # noqa: E402


def links_of(graph) -> Links:
    """The links of a graph of networkx, which weigh 1 where it says nothing."""
    one, other, weight = zip(*graph.edges(data="weight", default=1.0), strict=True)
    return Links(np.array(one), np.array(other), np.array(weight, float))


TRIANGLES = links_of(networkx.barbell_graph(3, 0))
BARBELL = links_of(networkx.barbell_graph(5, 0))
KARATE = links_of(networkx.karate_club_graph())
KNOWN = {
    "two triangles": (TRIANGLES, 2.320730),
    "a barbell": (BARBELL, 2.642755),
    "the karate club": (KARATE, 4.087423),
    "caves": (links_of(networkx.connected_caveman_graph(5, 6)), 3.089851),
    "ten that all meet": (links_of(networkx.complete_graph(10)), 3.321928),
}


@pytest.mark.parametrize("name", KNOWN)
def test_lengths_are_the_published_ones(name):
    links, expected = KNOWN[name]
    modules = partition(links, int(max(links.one.max(), links.other.max())) + 1, seed=1)
    assert code_length(links, modules) == pytest.approx(expected, abs=1e-5)


def test_lengths_of_other_partitions():
    """One module is the entropy of the visits; the two halves of the karate club are not the shortest description."""
    links = BARBELL
    visits = np.bincount(np.concatenate([links.one, links.other])) / (2 * len(links.one))
    assert code_length(links, np.zeros(10, int)) == pytest.approx(-(visits * np.log2(visits)).sum())
    assert code_length(links, np.zeros(10, int)) == pytest.approx(3.3157, abs=1e-4)
    assert code_length(KARATE, np.zeros(34, int)) == pytest.approx(4.6340, abs=1e-4)
    random = np.random.default_rng(0)
    modules = random.integers(0, 4, 34)
    relabelled = np.array([2, 0, 3, 1])[modules]
    scaled = KARATE._replace(weight=7 * KARATE.weight)
    lengths = [code_length(KARATE, modules), code_length(KARATE, relabelled), code_length(scaled, modules)]
    assert lengths == pytest.approx([lengths[0]] * 3)


def test_the_graph_is_that_of_the_nearest():
    """Every text is linked with the texts of the largest cosines, by brute force, and a link stands once."""
    vectors = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    expected = {tuple(sorted((a, int(b)))) for a in range(40) for b in np.argsort(-cosines[a])[:3]}
    links = neighbour_graph(vectors, 3)
    assert len(links.one) == len(expected)
    assert {*zip(links.one.tolist(), links.other.tolist(), strict=True)} == expected
    np.testing.assert_allclose(links.weight, cosines[links.one, links.other], rtol=1e-5)


def test_planted_groups_are_found_whatever_the_seed_and_less_so_in_noise():
    random = np.random.default_rng(0)
    centres, groups = random.normal(size=(8, 16)), np.repeat(np.arange(8), 40)
    found = []
    for noise in (0.3, 1.0, 4.0):
        vectors = centres[groups] + noise * random.normal(size=(320, 16))
        links = neighbour_graph(vectors, 10)
        found.append([metrics.adjusted_mutual_info_score(groups, partition(links, 320, seed)) for seed in (1, 2)])
    assert min(found[0]) > 0.98
    for clear, dim in pairwise(np.mean(found, axis=1)):
        assert clear > dim


def test_a_text_without_links_is_alone():
    modules = partition(TRIANGLES, 8, seed=1)
    assert len(set(modules[6:])) == 2
    assert not set(modules[6:]) & set(modules[:6])


@pytest.mark.slow
def test_the_analysis_prints_a_row_and_draws(tmp_path, capsys):
    run = saved(untrained("--pooler", "mean"), tmp_path / "run")
    line = [str(run), "--analysis", "communities", "--ask.neighbours", "5", "--ask.drawn", "40", "--ask.seeds", "2"]
    assert analyse.main(line) == 0
    found = json.loads((run / "analyses" / "communities-test.json").read_text())
    (row,) = found["table"]
    modules, labels = zip(*((x["community"], x["target"]) for x in found["examples"]), strict=True)
    assert row["communities"] == len(set(modules)) > 1
    assert row["AMI with the labels"] == pytest.approx(metrics.adjusted_mutual_info_score(labels, modules))
    assert row["saving"] == pytest.approx(1 - row["bits a step"] / row["bits in one module"])
    assert (run / "analyses" / "communities-test.png").read_bytes().startswith(b"\x89PNG")
    assert "figure" not in found


def test_too_few_texts_are_one_line(tmp_path, one_line):
    run = saved(untrained("--pooler", "mean"), tmp_path / "run")
    line = [str(run), "--analysis", "communities", "--texts", "8"]
    one_line(analyse.main, line, 65, "found 8 texts for 10 neighbours each")


def clinc(folder, content) -> list:
    with zipfile.ZipFile(folder / intents.ARCHIVE.name, "w") as archive:
        archive.writestr("data_full.json", content)
    return list(TASKS["clinc150"].examples(TASKS["clinc150"].Options(archives=folder)))


def test_intents_are_read_and_those_out_of_scope_are_not(tmp_path):
    rows = {"oos_val": [["x", "oos"]], "val": [["b", "two"]], "train": [["a", "one"]], "test": [["c", "one"]]}
    found = clinc(tmp_path, json.dumps(rows))
    assert [tuple(example) for example in found] == [
        ("a", "one", "train"),
        ("b", "two", "validation"),
        ("c", "one", "test"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"train": [["a", "one"]]}', "found train, expected a list val"),
        ('{"train": [["a"]]}', r"train, row 1: found \['a'\], expected \[text, intent\]"),
        ('{"train": [["a", 1]]}', "expected"),
    ],
)
def test_bad_intents_are_one_line(content, message, tmp_path):
    with pytest.raises(DataError, match=message):
        clinc(tmp_path, content)
