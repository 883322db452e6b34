"""Every objective of the table, on toy data: trained, stopped, resumed, swept, reported and beside its baseline.

A new row is tested here without a new test, if the texts of a toy carry what it needs.
"""

import csv
import dataclasses
import io
import json
import os
import signal
from itertools import chain, combinations
from typing import ClassVar

import numpy as np
import pytest

from experiments import baseline, report, sweep
from experiments.base.options import as_arguments
from experiments.baselines import BASELINES
from experiments.baselines.ngram import NGrams
from experiments.data.rating_task import RatingTask
from experiments.data.targets import Groups, Numbers, Tags
from experiments.data.text import Example
from experiments.data.text_task import TextOptions
from experiments.data.titles import TitleOptions, TitleTask
from experiments.data.triples import TripleOptions, TripleTask, as_facts, mention_of
from experiments.objectives import OBJECTIVES
from experiments.reporting import records, tables
from experiments.reporting.measures import measure_of
from experiments.run.trained import load_run
from experiments.tasks import TASKS
from experiments.tasks.ratings import PlantedRatings
from experiments.train import main
from tests.harness.conftest import CLUES, FILLER, Toy, toy_examples
from tests.harness.test_resume import interrupt, result
from tests.harness.tiny import LARGE, each_objective

VALUES = {"animal": 1.0, "plant": 4.0, "tool": 9.0}


def clues(text: str) -> list[str]:
    """The kinds that the words of a text belong to."""
    return [label for word in text.split() for label, words in CLUES.items() if word in words]


class ToyTags(Toy):
    """The kinds that a text names, none to two of them."""

    Targets: ClassVar[type] = Tags
    objective: ClassVar[str] = "multilabel"

    @classmethod
    def examples(cls, options: TextOptions) -> list[Example]:
        random, found = np.random.default_rng(1), []
        for text, _, split in toy_examples():
            words = [word for word in text.split() if word in FILLER]
            words += [str(random.choice(CLUES[label])) for label in random.choice([*CLUES], random.integers(0, 3))]
            text = " ".join(words)
            found.append(Example(text, tuple(dict.fromkeys(clues(text))), split))
        return found


class ToyNumbers(Toy):
    """A number for the kind that a text names."""

    Targets: ClassVar[type] = Numbers
    objective: ClassVar[str] = "regress"

    @classmethod
    def examples(cls, options: TextOptions) -> list[Example]:
        return [example._replace(target=VALUES[example.target]) for example in toy_examples()]


class ToyGroups(Toy):
    """Texts of one group name the same two things; held-out groups name known things together for the first time."""

    Targets: ClassVar[type] = Groups
    objective: ClassVar[str] = "similarity"

    @classmethod
    def examples(cls, options: TextOptions) -> list[Example]:
        random, found = np.random.default_rng(2), []
        pairs = [*combinations(sorted(chain.from_iterable(CLUES.values())), 2)]
        for place, pair in enumerate(random.permutation(pairs)):
            split = "validation" if place < 6 else "test" if place < 12 else "train"
            for _ in range(TEXTS_A_GROUP):
                words = [*pair, *random.choice(FILLER, random.integers(0, 5))]
                found.append(Example(" ".join(random.permutation(words)), " ".join(pair), split))
        return found


class ToyTriples(TripleTask):
    """An animal eats the plant of its text, if there is one, and leaves a tool alone."""

    @classmethod
    def examples(cls, options: TripleOptions) -> list[Example]:
        random, found = np.random.default_rng(3), []
        for text, _, split in toy_examples():
            words = [word for word in text.split() if word in FILLER]
            named = [str(random.choice(CLUES[kind])) for kind in ("animal", str(random.choice(["plant", "tool"])))]
            words = [str(word) for word in random.permutation([*words, *named])]
            eaten = [word for word in named if word in CLUES["plant"]]
            triples = [(mention_of(words, named[:1]), "eats", mention_of(words, eaten)) for _ in eaten]
            found.append(Example(" ".join(words), as_facts(triples), split))
        return found


class ToyTitles(TitleTask):
    """The title is the words of a text that name things, in their order; there are none to two."""

    @classmethod
    def examples(cls, options: TitleOptions) -> list[Example]:
        named = {*chain.from_iterable(CLUES.values())}
        return [
            Example(text, " ".join(word for word in text.split() if word in named), split)
            for text, _, split in ToyTags.examples(options)
        ]


TEXTS_A_GROUP = 8
NETWORK = ["--encoder", "bag", "--encode.features", "16", "--evaluations", "1", "--optim.learning-rate", "0.03"]


class ToyRatings(PlantedRatings):
    """Few ratings by the planted rule."""

    Options: ClassVar[type] = dataclasses.make_dataclass(
        "ToyRatingOptions",
        [("number_of_users", int, 60), ("number_of_items", int, 20), ("per_user", int, 8)],
        bases=(PlantedRatings.Options,),
        frozen=True,
    )


TOYS = {
    "toy": Toy,
    "toy_groups": ToyGroups,
    "toy_tags": ToyTags,
    "toy_numbers": ToyNumbers,
    "toy_titles": ToyTitles,
    "toy_triples": ToyTriples,
    "toy_ratings": ToyRatings,
}
CARRIED = {name: {*kind(kind.Options()).codec.sizes} for name, kind in TOYS.items()}
FITTING = {
    name: next(toy for toy in TOYS if set(kind.needs) <= CARRIED[toy])
    for name, kind in OBJECTIVES.items()
    if any(set(kind.needs) <= carried for carried in CARRIED.values())
    and not kind.guided  # these need a finished run: test_guided.py
}


def trivial(name: str) -> float | None:
    """The score of what knows nothing of a text, on the test split."""
    toy = TOYS[FITTING[name]]
    examples = [example for example in toy.examples(toy.Options()) if example.split == "test"]
    targets = [example.target for example in examples]
    if name == "classify":
        return max(map(targets.count, set(targets))) / len(targets)
    if name == "multilabel":  # every tag to every text
        true = sum(map(len, targets))
        return 2 * true / (true + 3 * len(targets))
    if name in ("rating", "regress"):
        return float(np.var(targets))
    if name == "similarity":
        return (TEXTS_A_GROUP - 1) / (len(targets) - 1)
    if name == "title":  # the same word for every text
        titles = [target.split() for target in targets]
        return max(
            sum(2 / (len(title) + 1) for title in titles if word in title) / len(titles)
            for word in chain.from_iterable(CLUES.values())
        )
    if name == "triples":  # an animal and a plant at random
        return 1 / 9
    if name == "language_model":
        return float(len(FILLER) + sum(map(len, CLUES.values())))
    return None


def data_of(name: str) -> dict[str, int]:
    """The options of the data of a toy."""
    of_ratings = issubclass(TOYS[FITTING[name]], RatingTask)
    return {"batch_size": 32} | ({"most_reviews": 2, "longest": 6} if of_ratings else {"max_len": 12, "buckets": 1})


def line(name: str, *more: str) -> list[str]:
    data = as_arguments({f"data.{option}": value for option, value in data_of(name).items()})
    return [*NETWORK, *data, "--task", FITTING[name], "--objective", name, *more]


@pytest.fixture(autouse=True, scope="module")
def toys():
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in TOYS.items():
            patch.setitem(TASKS, name, kind)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trains an objective once and returns the folder."""
    folder, done = tmp_path_factory.mktemp("objectives"), set()

    def of(name):
        if name not in done:
            assert main(line(name, "--epochs", "5", "--out", str(folder / name))) == 0
            done.add(name)
        return folder / name

    return of


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """Scores the baseline of an objective once and returns the folder."""
    pytest.importorskip("sklearn")
    folder, done = tmp_path_factory.mktemp("baselines"), set()

    def of(name):
        if name not in done:
            data = as_arguments({f"data.{option}": value for option, value in data_of(name).items()})
            arguments = ["--task", FITTING[name], "--objective", name, *data, "--out", str(folder / name)]
            assert baseline.main(arguments) == 0
            done.add(name)
        return folder / name

    return of


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def reported(folders, capsys):
    """The lines of a report, the header first."""
    capsys.readouterr()
    assert report.main([*map(str, folders), "--format", "csv"]) == 0
    return [*csv.reader(io.StringIO(capsys.readouterr().out))]


def is_better(name, one, other):
    sign = measure_of(name).sign
    return sign * one > sign * other


def test_the_toys_fit_every_objective_with_a_baseline():
    assert FITTING.keys() >= BASELINES.keys()


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", FITTING)
def test_it_learns_and_validation_chooses(name, whole):
    folder, (metric, better) = whole(name), OBJECTIVES[name].chosen_by
    facts = summary(folder)
    assert facts["objective"] == name
    found = [json.loads(text)[metric] for text in (folder / "metrics.jsonl").read_text().splitlines()]
    best = {"max": max, "min": min}[better](found)
    assert facts["validation"][metric] == best
    assert is_better(name, best, found[0]), "the first validation is of what is not trained"
    if trivial(name) is not None:
        assert is_better(name, facts["test"][metric], trivial(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTING)
def test_a_signal_saves_and_resume_is_bit_identical(name, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(monkeypatch, 13, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(line(name, "--epochs", "5", "--out", str(folder))) == 75
    assert not (folder / "summary.json").exists()
    assert main(["--resume", str(folder)]) == 0
    assert result(folder) == result(whole(name))


@each_objective(FITTING)
def test_it_predicts_a_record_a_text(name, whole):
    pairs = [("u1", "i2"), ("nobody", "nothing")]
    records = pairs if FITTING[name] == "toy_ratings" else ["a small cat", "the oak"]
    found = [*load_run(whole(name)).predict(records)]
    assert len(found) == 2
    assert all(found), "a record says something"


@each_objective(FITTING)
def test_a_report_has_its_metrics_and_no_others(name, whole, capsys):
    header, row = reported([whole(name)], capsys)
    shown, chosen = OBJECTIVES[name].shown, OBJECTIVES[name].chosen_by[0]
    columns = {f"test {label}" if metric == chosen else label: metric for metric, label in shown.items()}
    others = {label for kind in OBJECTIVES.values() for label in kind.shown.values()} - set(shown.values())
    assert not {column.removeprefix("test ").removesuffix(" mean") for column in header} & others
    for column, metric in columns.items():
        assert float(row[header.index(f"{column} mean")]) == summary(whole(name))["test"][metric]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in BASELINES])
def test_a_baseline_learns_and_stands_beside_the_network(name, whole, baselines, capsys):
    facts = summary(baselines(name))
    assert facts["objective"] == name
    assert facts["test"].keys() == facts["validation"].keys() >= OBJECTIVES[name].shown.keys()
    assert is_better(name, facts["test"][OBJECTIVES[name].chosen_by[0]], trivial(name))
    rows = records.rows(records.collect([whole(name), baselines(name)]))
    (row,) = tables.against_baseline(rows, [row for row in rows if row.is_baseline]).rows
    assert row[0].startswith(f"{FITTING[name]} (")
    assert row[1] == facts["test"][OBJECTIVES[name].chosen_by[0]]


@pytest.mark.slow
def test_runs_of_several_objectives_share_a_report(whole, baselines, tmp_path, capsys):
    names = BASELINES.keys() - {"title"}  # whose programs take long to compile
    folders = [str(of(name)) for name in sorted(names) for of in (whole, baselines)]
    header, *rows = reported(folders, capsys)
    assert [row[0] for row in rows] == [name for name in OBJECTIVES for _ in range(2 * (name in names))]
    for row in rows:
        filled = {column for column, cell in zip(header, row, strict=True) if cell and column.endswith(" mean")}
        metrics = {f"test {label}" for label in OBJECTIVES[row[0]].shown.values()} | {
            *OBJECTIVES[row[0]].shown.values()
        }
        assert {column.removesuffix(" mean") for column in filled} <= metrics | {"p", "seconds"}
    assert report.main([*folders, "--pivot"]) == 0
    assert "bag, regress" in capsys.readouterr().out
    assert report.main([*folders, "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "Against the n-gram baseline;" in text
    assert "Against the linear baseline;" in text


@pytest.mark.slow
def test_a_sweep_goes_through_objectives(tmp_path, capsys):
    (tmp_path / "grid.toml").write_text(
        "encoder = 'bag'\nepochs = 1\nevaluations = 1\nencode.features = 16\n"
        + "".join(
            f"[[cells]]\ntask = '{FITTING[name]}'\nobjective = '{name}'\n"
            + "".join(f"data.{option} = {value}\n" for option, value in data_of(name).items())
            for name in FITTING
        )
    )
    assert sweep.main([str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for name in FITTING:
        assert measure_of(name).label in printed
    done = [summary(folder) for folder in (tmp_path / "out").iterdir() if (folder / "summary.json").exists()]
    assert sorted(facts["objective"] for facts in done) == sorted(FITTING)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_of_n_grams_sum_to_one(order):
    random, words = np.random.default_rng(0), 7
    texts = [random.integers(1, 6, random.integers(0, 7)).tolist() for _ in range(20)]
    model = NGrams(texts, order, words)  # 6 and 7 were never seen
    for history in ([], [1], [2, 3], [4, 4, 4], [1, 2, 3, 4, 5], [7, 1]):
        p = [model.probabilities(model.evidence([[*history, word]]), 0.7)[-1] for word in range(1, words + 1)]
        assert sum(p) == pytest.approx(1)
        assert min(p) > 0


def test_n_grams_by_hand():
    """Texts "a b" and "b": after the beginning a and b once each; one word (a) comes before b, and the beginning."""
    model = NGrams([[1, 2], [2]], order=2, words=2)
    (first, second) = model.probabilities(model.evidence([[1, 2]]), discount=0.5)
    # Different words before: a has the beginning; b has a and the beginning. p(a) = (1 - D)/3 + (2 D / 3) / 2.
    a, b = 0.5 / 3 + 1 / 3 / 2, 1.5 / 3 + 1 / 3 / 2
    assert first == pytest.approx(0.5 / 2 + 0.5 * a)
    assert second == pytest.approx(0.5 / 1 + 0.5 * b)
