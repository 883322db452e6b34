"""Titles: beam search against brute force, one step at a time against all at once, the prior, scores, bad files."""

import dataclasses
import itertools
import json
import lzma
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.analyses import ANALYSES
from experiments.base.errors import DataError, UsageError
from experiments.data import rouge
from experiments.data.corpus import TextBatch
from experiments.data.titles import Titles
from experiments.layers.decoder import Decoder, Modulation, normalised
from experiments.layers.search import beam
from experiments.layers.titles import TitleScores, present, words_of
from experiments.objectives.title import FASTER
from experiments.run import build
from experiments.run.config import default_config, parse_args
from experiments.run.trained import Trained
from experiments.tasks import TASKS
from tests.harness.tiny import MASK, TOKENS, VOCABULARY, tiny

# The search.

WORDS, LENGTH = 4, 3  # the word 0 is the end


def chain_step(table: np.ndarray):
    """A model whose next word depends on all words before: its state is their number in base `WORDS`."""

    def step(state, last):
        state = state * WORDS + last
        return state, jnp.asarray(table)[jnp.arange(len(table))[:, None], state]

    return step


def brute_force(table: np.ndarray, power: float) -> list[tuple[float, float, tuple[int, ...]]]:
    """All sequences with their scores and log p, the best first."""
    found = []
    for length in range(LENGTH + 1):
        for words in itertools.product(range(1, WORDS), repeat=length):
            written = (*words, 0) if length < LENGTH else words
            state, log_p, last = 0, 0.0, 0
            for word in written:
                state = state * WORDS + last
                log_p += float(table[state, word])
                last = word
            found.append((log_p / len(written) ** power, log_p, words + (0,) * (LENGTH - length)))
    return sorted(found, reverse=True)


def log_ps(random, texts: int) -> np.ndarray:
    """log p of the next word after every history of two texts, in no order."""
    logits = random.normal(scale=1.5, size=(texts, WORDS**LENGTH, WORDS))
    return np.float32(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def searched(table: np.ndarray, width: int, power: float):
    state = jnp.zeros((len(table), width), jnp.int32)
    begin = jnp.zeros(len(table), jnp.int32)
    return jax.jit(lambda: beam(chain_step(table), state, begin, width=width, length=LENGTH, length_power=power))()


@pytest.mark.parametrize("power", [0.0, 1.0, 0.7])
def test_a_wide_beam_is_brute_force(power):
    """All 40 sequences of at most three of three words, in their order; beyond them there is nothing."""
    table = log_ps(np.random.default_rng(0), 5)
    width = 1 + 3 + 9 + 27
    found = searched(table, width + 2, power)
    for row in range(len(table)):
        expected = brute_force(table[row], power)
        assert [tuple(words) for words in np.asarray(found.words[row, :width]).tolist()] == [one[2] for one in expected]
        np.testing.assert_allclose(found.score[row, :width], [one[0] for one in expected], rtol=1e-5)
        np.testing.assert_allclose(found.log_p[row, :width], [one[1] for one in expected], rtol=1e-5)
        assert (found.log_p[row, width:] == -np.inf).all()


def test_a_beam_of_one_is_the_greedy_choice():
    table = log_ps(np.random.default_rng(1), 20)
    found = np.asarray(searched(table, 1, 0.0).words[:, 0])
    for row in range(len(table)):
        state, last, words = 0, 0, []
        while len(words) < LENGTH:
            state = state * WORDS + last
            last = int(np.argmax(table[row, state]))
            words.append(last)
            if last == 0:
                break
        assert found[row].tolist() == words + [0] * (LENGTH - len(words))


def test_a_beam_keeps_the_best_of_every_step():
    """A search of bounded width by lists and sorting."""
    table = log_ps(np.random.default_rng(2), 20)
    for width, power in ((2, 0.0), (3, 1.0)):
        found = searched(table, width, power)
        for row in range(len(table)):
            kept = [((), 0.0)]
            for _ in range(LENGTH):
                grown = []
                for words, log_p in kept:
                    if words[-1:] == (0,):
                        grown.append((words, log_p))
                        continue
                    state = 0
                    for word in (0, *words):
                        state = state * WORDS + word
                    grown += [((*words, word), log_p + float(table[row, state, word])) for word in range(WORDS)]
                kept = sorted(grown, key=lambda one: one[1] / len(one[0]) ** power, reverse=True)[:width]
            padded = [list(words) + [0] * (LENGTH - len(words)) for words, _ in kept]
            assert np.asarray(found.words[row]).tolist() == padded
            np.testing.assert_allclose(found.log_p[row], [log_p for _, log_p in kept], rtol=1e-5)


# The model.


def model(prior: str = "added", layers: int = 2, seed: int = 0):
    """A small model, all of whose numbers are random, those of the prior too."""
    config = default_config(encoder="gru", objective="title", pooler="max")
    head = dataclasses.replace(config.head, hidden=8, heads=2, modulation=4, prior=prior, layers=layers)
    config = dataclasses.replace(config, encode=tiny(config.encode), head=head, seed=seed)
    objective = build.objective(config, {"words": VOCABULARY, "title": 4})[0]
    for name in ("bias", "prior_scale", "prior_shift"):
        if hasattr(objective, name):
            random = np.random.default_rng(len(name)).normal(size=VOCABULARY)
            getattr(objective, name)[...] = jnp.asarray(random / FASTER, jnp.float32)
    return objective


TARGETS = np.array([[5, 9, 0, 0, 0], [7, 2, 9, 11, 0], [0, 0, 0, 0, 0], [4, 4, 4, 0, 0]], np.int32)


def batch(tokens=TOKENS, mask=MASK, targets=TARGETS) -> TextBatch:
    return jax.tree.map(jnp.asarray, TextBatch(tokens, mask, targets, np.ones(len(tokens), np.float32)))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("prior", ["added", "none"])
def test_word_by_word_is_all_at_once(prior):
    """log p of a title by steps with a carried state, two sequences a text, against the losses of training."""
    objective = model(prior)
    others = np.random.default_rng(0).integers(2, VOCABULARY, TARGETS.shape)
    given = jnp.stack([jnp.asarray(TARGETS), jnp.asarray(others)], axis=1)

    @jax.jit
    def computed(batch):
        outputs = objective(batch)
        memory, present = objective.memory(outputs), outputs["present"]
        carried, last, losses = objective.decoder.start(len(TOKENS), 2), jnp.zeros_like(given[:, :, 0]), []
        for at in range(TARGETS.shape[1]):
            carried, queries = objective.decoder.recur(carried, objective.words(last), memory)
            log_p = jax.nn.log_softmax(objective.logits(objective.decoder.read(queries, memory), present))
            log_p = log_p.reshape(*last.shape, VOCABULARY)
            losses.append(-jnp.take_along_axis(log_p[:, 0], batch.targets[:, at : at + 1], axis=-1)[:, 0])
            last = given[:, :, at]
        return outputs["losses"], outputs["counted"], jnp.stack(losses, axis=1)

    losses, counted, stepped = map(np.asarray, computed(batch()))
    np.testing.assert_allclose(stepped[counted], losses[counted], rtol=1e-4, atol=1e-5)
    assert counted.sum(axis=1).tolist() == [3, 5, 1, 4], "the words and the end"


def test_the_search_is_that_of_the_losses():
    """The log p of a title that the search has found is that of the title as a target."""
    objective = model()
    computed = jax.jit(lambda batch: objective(batch))
    found = jax.jit(lambda batch: objective.search(objective(batch), 3, 0.0))(batch())
    for place in range(3):
        targets = np.pad(np.asarray(found.words[:, place]), ((0, 0), (0, 1)))
        outputs = computed(batch(targets=targets))
        ended = (targets[:, :4] == 0).any(axis=1)
        losses = np.asarray(outputs["losses"]).copy()
        losses[~ended, 4] = 0  # what has the greatest length needs no end
        np.testing.assert_allclose(-losses.sum(axis=1), found.log_p[:, place], rtol=1e-4)
        assert not (targets == 1).any(), "the unknown word is never written"


def test_the_prior_is_what_its_formula_says():
    """y from the model without it, in NumPy; `present` by sets; the order of a text and its padding change nothing."""
    hidden = jnp.asarray(np.random.default_rng(3).normal(size=(4, 2, 8)), jnp.float32)
    x = np.zeros((4, 1, VOCABULARY))
    for row, (tokens, mask) in enumerate(zip(TOKENS, MASK, strict=True)):
        x[row, 0, [word for word in {*tokens[mask].tolist()} if word > 1]] = 1
    there = present(jnp.asarray(TOKENS), jnp.asarray(MASK), VOCABULARY)
    np.testing.assert_array_equal(there[:, None], x > 0)
    turned = present(jnp.asarray(TOKENS[:, ::-1]), jnp.asarray(MASK[:, ::-1]), VOCABULARY)
    np.testing.assert_array_equal(turned, there)
    plain = np.asarray(model("none").logits(hidden, there), np.float64).reshape(4, 2, VOCABULARY)
    for prior in ("added", "halved"):
        objective = model(prior)
        s = FASTER * np.asarray(objective.prior_scale[...], np.float64)
        expected = plain + s * x
        if prior == "halved":
            expected = (plain + np.exp(s) * x + FASTER * np.asarray(objective.prior_shift[...])) / 2
        found = objective.logits(hidden, there).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_added_prior_is_the_identity_at_the_start_and_the_halved_one_is_not():
    config = parse_args(
        ["--objective", "title", "--encoder", "bag", "--pooler", "mean", "--encode.features", "8", "--head.hidden", "8"]
    )
    sizes = {"words": VOCABULARY, "title": 4}
    made = {
        prior: build.objective(dataclasses.replace(config, head=dataclasses.replace(config.head, prior=prior)), sizes)[
            0
        ]
        for prior in ("none", "added", "halved")
    }
    losses = {
        prior: np.asarray(jax.jit(lambda batch, objective=objective: objective(batch)["losses"])(batch()))
        for prior, objective in made.items()
    }
    np.testing.assert_array_equal(losses["added"], losses["none"])
    assert (losses["halved"] != losses["none"]).any()


def test_a_normalisation_is_modulated():
    """Against NumPy; without a hidden unit the factor is 1 and the shift 0."""
    random = np.random.default_rng(0)
    x, vector = random.normal(size=(2, 3, 6)), jnp.asarray(random.normal(size=(2, 5)), jnp.float32)
    modulation = Modulation(5, 4, 6, rngs=nnx.Rngs(0))
    scale, shift = modulation(vector)
    hidden = np.maximum(np.asarray(vector) @ np.asarray(modulation.hidden.kernel[...]), 0)
    both = hidden @ np.asarray(modulation.out.kernel[...])
    plain = (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)
    expected = (1 + both[:, None, :6]) * plain + both[:, None, 6:]
    np.testing.assert_allclose(normalised(jnp.asarray(x, jnp.float32), scale, shift), expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide 8 hidden units"):
        Decoder(4, 4, 4, hidden=8, layers=1, heads=3, modulation=2, rngs=nnx.Rngs(0))


# Scores.


def test_rouge_is_that_of_the_package_and_by_hand():
    """Of words of a to z the package splits as we do; and the cat sat / the dog sat by hand."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    random = np.random.default_rng(0)
    pairs = [[random.choice(list("abcde"), random.integers(1, 8)).tolist() for _ in range(2)] for _ in range(30)]
    package = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    found = [package.score(" ".join(right), " ".join(written)) for right, written in pairs]
    for name, key in rouge.NAMES.items():
        assert rouge.scores(pairs)[name] == pytest.approx(np.mean([one[key].fmeasure for one in found]))
    one = rouge.scores([(["the", "cat", "sat", "down"], ["the", "dog", "sat"])])
    assert one == pytest.approx({"rouge_1": 4 / 7, "rouge_2": 0, "rouge_l": 4 / 7})
    assert rouge.scores([(["\u043a\u043e\u0442"], ["\u043a\u043e\u0442"])])["rouge_1"] == 1, "any script"
    assert rouge.scores([([], ["a"]), ([], [])]) == dict.fromkeys(rouge.NAMES, 0.0)


def test_scores_of_numbers():
    """An unknown word of the right title counts as missed; rows of weight 0 do not count; perplexity by hand."""
    assert words_of(np.array([3, 4, 0, 5])) == [3, 4]
    assert words_of(np.array([3, 4])) == [3, 4]
    right, found = np.array([[3, 1, 0], [4, 0, 0]]), np.array([[3, 5], [4, 0]])
    part = TitleScores.of(right, found, np.array([1.0, 0.0]), np.array([[2.0, 4.0]]), np.array([[1.0, 1.0]]))
    scores = (part + part).compute()
    assert scores["rouge_1"] == pytest.approx(1 / 2)
    assert scores["perplexity"] == pytest.approx(np.exp(3))


def test_without_rouge_score_one_line(monkeypatch):
    monkeypatch.setattr(rouge, "rouge_scorer", None)
    with pytest.raises(UsageError, match="titles need rouge-score: python -m pip install"):
        TASKS["title_file"](parse_args(["--task", "title_file", "--path", "a.csv"]).data)


# Files.

ROWS = [{"source": f"s{n}", "title": f"The thing number {n}", "text": f"A thing {n}: it is one.\nIt is small."}
        for n in range(80)]  # fmt: skip


def file_task(path: Path, *options: str):
    return TASKS["title_file"](parse_args(["--task", "title_file", "--path", str(path), *options]).data)


def as_lines(rows) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.xz"])
def test_files_of_titles(name, tmp_path):
    content = as_lines(ROWS)
    if name == "a.csv":
        content = "headline,article\n" + "".join(f"{row['title']},a thing {n}\n" for n, row in enumerate(ROWS))
        content = content.encode()
    (tmp_path / name).write_bytes(lzma.compress(content) if name.endswith("xz") else content)
    task = file_task(tmp_path / name, "--data.min-count", "1")
    assert sum(len(corpus) for corpus in task.splits.values()) == 80
    assert int(task.codec.sizes["title"]) == 4
    (batch,) = task.batches("test")
    titles = [task.codec.title(words_of(row)) for row in batch.targets[batch.weights > 0]]
    assert all(title.startswith("the thing number") for title in titles)
    apart = file_task(tmp_path / name, "--data.test", str(tmp_path / name))
    assert len(apart.splits["test"]) == 80
    assert len(apart.splits["train"]) + len(apart.splits["validation"]) == 80


def test_long_titles_are_cut_in_training_and_whole_in_the_scores(tmp_path):
    long = {"title": " ".join(f"w{n}" for n in range(15)), "text": "a b"}
    (tmp_path / "a.jsonl").write_bytes(as_lines([long, *ROWS]))
    (tmp_path / "t.jsonl").write_bytes(as_lines([long]))
    path = str(tmp_path / "t.jsonl")
    task = file_task(tmp_path / "a.jsonl", "--data.test", path, "--data.validation", path, "--data.min-count", "1")
    assert int(task.codec.sizes["title"]) == 12
    assert (task.splits["test"].targets != 0).sum() == 15
    assert task.describe()["test"]["longer_titles"] == 1
    assert task.describe()["test"]["title_words"] == 15
    assert Titles(json.loads(json.dumps(task.codec.targets.to_json()))).sizes == task.codec.targets.sizes


def debian(folder: Path, content: bytes):
    (folder / "debian_titles.jsonl.xz").write_bytes(content)
    return TASKS["debian_titles"](parse_args(["--task", "debian_titles", "--archives", str(folder)]).data)


def test_packages_of_a_source_are_in_one_split(tmp_path):
    rows = [{**row, "source": f"s{n % 20}"} for n, row in enumerate(ROWS)]
    task = debian(tmp_path, lzma.compress(as_lines(rows)))
    splits = {}
    for example in task.examples(task.codec.options):
        splits.setdefault(int(example.target.split()[-1]) % 20, set()).add(example.split)
    assert {len(found) for found in splits.values()} == {1}


BAD = {
    "cut": (lzma.compress(as_lines(ROWS))[:-20], "debian_titles.jsonl.xz cannot be read"),
    "not packed": (as_lines(ROWS), "expected a file of xz"),
    "wrong columns": (lzma.compress(as_lines([{"source": "a", "name": "b", "text": "c"}])), "no column for the title"),
    "a missing title": (lzma.compress(as_lines([*ROWS, {"source": "a", "text": "c"}])), "row 81: the title is missing"),
    "a list": (lzma.compress(as_lines([*ROWS, {**ROWS[0], "text": ["a"]}])), "row 81: column 'text' holds a JSON list"),
    "half of a character": (lzma.compress(as_lines([{**ROWS[0], "title": "\ud800"}])), "half of a character"),
    "no UTF-8": (lzma.compress(as_lines(ROWS) + b"\n\xff"), "line 81, byte 0: .*UTF-8"),
    "no JSON": (lzma.compress(as_lines(ROWS) + b'\n{"source": '), "row 81: expected one JSON object a line"),
    "nothing": (lzma.compress(b""), "the train split has no examples"),
    "no words": (lzma.compress(as_lines([{**row, "title": "--"} for row in ROWS])), "no title of the train split has"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(case, tmp_path):
    content, message = BAD[case]
    with pytest.raises(DataError, match=message) as error:
        debian(tmp_path, content)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="no file is given: --task title_file --path"):
        TASKS["title_file"](parse_args(["--task", "title_file"]).data)
    with pytest.raises(DataError, match=r"debian_titles.jsonl.xz is not at hand: give the folder"):
        TASKS["debian_titles"](parse_args(["--task", "debian_titles", "--archives", str(tmp_path)]).data)


def test_predictions_are_words(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_lines(ROWS))
    codec = file_task(tmp_path / "a.jsonl").codec
    trained = Trained(None, model(), codec)
    words = np.array([[codec.vocabulary.encode(["small"])[0], codec.vocabulary.encode(["thing"])[0], 0]])
    (record,) = trained.readable({"predictions": {"title": words, "log_p": np.array([-1.5])}}, iter(["A text"]))
    assert record == {"title": "small thing", "log_p": -1.5}


def test_samples_are_printed_and_scored(tmp_path):
    """The greedy titles are those of the metrics; ROUGE of the summary is the mean of the examples'."""
    (tmp_path / "a.jsonl").write_bytes(as_lines(ROWS))
    task = file_task(tmp_path / "a.jsonl")
    config = parse_args(["--task", "title_file", "--encoder", "bag", "--pooler", "mean", "--encode.features", "8"])
    objective = build.objective(config, task.codec.sizes)[0]
    examples = [example for example in task.examples(parse_args(
        ["--task", "title_file", "--path", str(tmp_path / "a.jsonl")]).data) if example.split == "test"]  # fmt: skip
    analysis = ANALYSES["titles"](ANALYSES["titles"].Options(samples=3, width=2))
    found = analysis(Trained(config, objective, task.codec), examples)
    assert [list(row) for row in found.table] == [["text", "title", "greedy", "beam of 2"]] * 3
    assert len(found.examples) == len(examples)

    @jax.jit
    def part(batch):
        return objective.metrics(objective(batch), batch)

    scores = sum((part(batch) for batch in task.batches("test")), TitleScores(())).compute()
    for name in rouge.NAMES:
        assert found.summary[f"{name} greedy"] == pytest.approx(scores[name])
        mean = np.mean([one["rouge"]["beam of 2"][name] for one in found.examples])
        assert found.summary[f"{name} beam of 2"] == pytest.approx(mean)
    with pytest.raises(UsageError, match="the objective classify writes no titles"):
        analysis(Trained(parse_args([]), nnx.Linear(1, 1, rngs=nnx.Rngs(0)), task.codec), examples)
