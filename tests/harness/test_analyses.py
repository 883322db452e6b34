"""Analyses against numbers by hand, against words deleted one by one, and against scipy on what was stored."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import analyse
from experiments.analyses import ANALYSES
from experiments.base.errors import UsageError
from experiments.base.findings import Analysis, Findings
from experiments.data.text import Example
from experiments.layers.losses import total_variation
from experiments.run.importance import GRADIENT, measured, tau, without_each_word
from tests.harness.conftest import toy_examples
from tests.harness.tiny import MASK, STATES, pooler_of
from tests.harness.untrained import saved, untrained

TEXTS = ["the small oak of a dog", "cat", "", "a saw the moss in file small", "unheard of words", "of of of"]
EXAMPLES = [Example(text, "animal", "test") for text in TEXTS]
OF_WORDS = ("gradient", "leave_one_out")  # the analyses that compare weights of words
OF_TEXTS = (*OF_WORDS, "permutation", "adversarial")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model and its folder by pooler, each made when it is first asked for."""
    made = {}

    def run(pooler: str, *options: str):
        key = (pooler, *options)
        if key not in made:
            trained = untrained("--pooler", pooler, *options)
            made[key] = trained, saved(trained, tmp_path_factory.mktemp("run") / pooler)
        return made[key]

    return run


def texts_of(trained, shortest=2, examples=EXAMPLES):
    return [text for some in measured(trained, iter(examples), shortest) for text in some]


def test_gradient_of_a_mean_of_word_vectors(runs):
    """y = softmax(W mean(x) + b)_c, so dy/ds_i = y_c sum_k (1[k = c] - y_k) W_k . x_i / n."""
    trained, _ = runs("mean")
    table = np.asarray(trained.objective.encoder.words.table.embedding[...], np.float64)
    linear = trained.objective.head.linear
    kernel, bias = (np.asarray(part[...], np.float64) for part in (linear.kernel, linear.bias))
    found = texts_of(trained, shortest=1)
    assert [" ".join(text.words) for text in found] == [TEXTS[0], TEXTS[1], *TEXTS[3:]]
    for text in found:
        vectors = table[trained.codec.vocabulary.encode(text.words)]
        logits = vectors.mean(axis=0) @ kernel + bias
        y = np.exp(logits) / np.exp(logits).sum()
        c = y.argmax()
        slope = y[c] * (np.eye(len(y))[c] - y)
        np.testing.assert_allclose(text.output, y, rtol=1e-4)
        np.testing.assert_allclose(text.measures[GRADIENT], np.abs(vectors @ kernel @ slope) / len(vectors), rtol=1e-3)
        assert text.measures.keys() == {GRADIENT}


def test_the_attention_is_detached(runs):
    """y = softmax(W sum_i a_i x_i + b)_c with a fixed: dy/ds_i = a_i y_c sum_k (1[k = c] - y_k) W_k . x_i."""
    trained, _ = runs("attention")
    table = np.asarray(trained.objective.encoder.words.table.embedding[...], np.float64)
    kernel = np.asarray(trained.objective.head.linear.kernel[...], np.float64)
    for text in texts_of(trained):
        vectors, weights = table[trained.codec.vocabulary.encode(text.words)], text.measures["attention"]
        slope = text.output.max() * (np.eye(3)[text.output.argmax()] - text.output)
        np.testing.assert_allclose(text.measures[GRADIENT], weights * np.abs(vectors @ kernel @ slope), rtol=2e-3)


def pooled_of(pooler: str, detached: bool):
    """The pooled vector as a function of the states of one text, with the attention detached or not."""
    made = pooler_of(pooler)
    made.detached = detached
    return lambda states: made(states, jnp.array(MASK[:1]))[0][0]


@pytest.mark.parametrize("pooler", ["attention", "dot_attention", "latent_query", "soft_pool"])
def test_a_weighted_sum_is_linear_where_its_attention_is_detached(pooler):
    states = jnp.array(STATES[:1])
    values, detached = jax.jvp(pooled_of(pooler, True), (states,), (states,))
    _, attached = jax.jvp(pooled_of(pooler, False), (states,), (states,))
    np.testing.assert_allclose(detached, values, rtol=1e-4, atol=1e-6)
    assert np.abs(attached - values).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("pooler", ["learned_norm", "naive_norm", "simpool"])
def test_a_power_mean_goes_feature_by_feature_where_its_attention_is_detached(pooler):
    detached, attached = pooled_of(pooler, True), pooled_of(pooler, False)
    states, others = jnp.array(STATES[:1]), 1 - np.eye(8)[:, None, None, :]
    np.testing.assert_array_equal(detached(states), attached(states))
    detached, attached = jax.jacobian(detached)(states), jax.jacobian(attached)(states)
    assert not (others * detached).any()
    assert np.abs(others * attached).max() > 1e-4


def test_weights_of_a_learned_norm(runs):
    """Effective weights are the attention to the power p, made to sum to 1; shares are v_i (h_i / r)^p."""
    trained, _ = runs("learned_norm")
    pooler = trained.objective.pooler
    p = float(pooler.p)
    ((_, outputs),) = trained.outputs(TEXTS[:1])
    states = np.asarray(outputs["states"][0, :6], np.float64)
    (text,) = texts_of(trained, examples=EXAMPLES[:1])
    attention, effective = (np.float64(text.measures[name]) for name in ("attention", "effective"))
    powers = attention**p
    np.testing.assert_allclose(effective, powers / powers.sum(), rtol=1e-3)
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    shares = effective[:, None] * np.exp(np.tanh(states)) ** p
    shares = (shares / shares.sum(axis=0)).mean(axis=1)
    np.testing.assert_allclose(text.measures["contribution"], shares, rtol=1e-3)


def test_leave_one_out_is_each_word_deleted(runs):
    trained, _ = runs("attention", "--encoder", "bigru", "--encode.embedding", "8", "--encode.features", "8")
    texts = texts_of(trained)
    changes = without_each_word(trained, texts)
    assert [len(change) for change in changes] == [6, 7, 3, 3]

    def probabilities(words):
        ((_, outputs),) = trained.outputs([" ".join(words)])
        return np.asarray(trained.objective.predict(outputs))[0]

    for text, change in zip(texts[:2], changes, strict=False):
        whole = probabilities(text.words)
        for at in range(len(text.words)):
            other = probabilities([word for place, word in enumerate(text.words) if place != at])
            assert change[at] == pytest.approx(np.abs(whole - other).sum() / 2, abs=1e-5)
            assert change[at] <= 1


def test_distance_of_two_classes_is_that_of_one_probability():
    assert float(total_variation(jnp.array([0.9, 0.1]), jnp.array([0.6, 0.4]))) == pytest.approx(0.3)
    assert total_variation(jnp.array([2.0]), jnp.array([-1.0])) == 3


def test_tau_by_hand():
    assert tau(np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3]))[0] == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not
    assert tau(np.array([1, 1, 1]), np.array([1, 2, 3])) == (None, None)


def test_texts_longer_than_the_model_reads_are_cut(runs):
    trained, _ = runs("attention")
    (text,) = texts_of(trained, examples=[Example("oak " * 20 + "dog", "plant", "test")])
    assert text.words == ["oak"] * 12
    assert all(len(values) == 12 for values in text.measures.values())


@pytest.mark.parametrize("analysis", OF_WORDS)
def test_the_table_follows_from_what_is_stored(analysis, runs, tmp_path, capsys):
    _, folder = runs("learned_norm")
    line = [str(folder), "--analysis", analysis, "--texts", "20", "--out", str(tmp_path)]
    assert analyse.main(line) == 0
    stored = json.loads((tmp_path / f"{analysis}-test.json").read_text())
    printed = capsys.readouterr().out
    for row in stored["table"]:
        name, other = row["of the words"], row["with"]
        pairs = [(text["words"][name], text["words"][other]) for text in stored["examples"]]
        taus = [stats.kendalltau(*pair) for pair in pairs]
        taus = [found for found in taus if np.isfinite(found.statistic)]
        assert row["texts"] == len(taus) > 5
        assert row["mean tau"] == pytest.approx(np.mean([found.statistic for found in taus]))
        assert row["standard deviation"] == pytest.approx(np.std([found.statistic for found in taus]))
        assert row["share p <= 0.05"] == pytest.approx(np.mean([found.pvalue <= 0.05 for found in taus]))
        assert f"| {name} | {other} | {len(taus)} | {row['mean tau']:.3f} |" in printed
    names = {"attention", "effective", "contribution"} | ({"gradient"} if analysis == "leave_one_out" else set())
    assert {row["of the words"] for row in stored["table"]} == names
    test = [example for example in toy_examples() if example.split == "test"]
    used = [(text["text"], text["target"]) for text in stored["examples"]]
    kept = [test[index * len(test) // 20] for index in range(20)]
    assert used == [(example.text, example.target) for example in kept if " " in example.text]


def test_the_run_stays_as_it_was_written(tmp_path):
    folder = saved(untrained("--pooler", "attention"), tmp_path / "run")
    for _ in range(2):  # the second reads a folder that the first has written into
        assert analyse.main([str(folder), "--texts", "2"]) == 0
    assert (folder / "analyses" / "gradient-test.json").is_file()


def test_a_pooling_without_weights_has_the_gradient_only(runs):
    trained, _ = runs("mean")
    with pytest.raises(UsageError, match="gives words no weights"):
        ANALYSES["gradient"](ANALYSES["gradient"].Options())(trained, EXAMPLES)
    findings = ANALYSES["leave_one_out"](ANALYSES["leave_one_out"].Options(shortest=3))(trained, EXAMPLES)
    assert [row["of the words"] for row in findings.table] == ["gradient"]
    assert findings.summary["texts"] == 4
    assert findings.table[0]["texts"] == 3  # in "of of of" all words matter alike
    assert findings.examples[-1]["tau"]["gradient"] == {"tau": None, "p": None}


def test_no_text_is_an_empty_table(runs):
    trained, _ = runs("attention")
    for name in OF_TEXTS:
        made = ANALYSES[name](ANALYSES[name].Options())
        assert isinstance(made, Analysis)
        assert made(trained, [EXAMPLES[2]]) == Findings([], {"texts": 0}, [])


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("nowhere --analysis gradient", 65, "nowhere does not exist"),
        ("RUN --analysis gradeint", 2, "did you mean 'gradient'?"),
        ("RUN --texts -1", 2, "--texts -1 is outside its range"),
        ("RUN --ask.shortest 1", 2, "--ask.shortest 1 is outside its range"),
        ("RUN --split tests", 2, "invalid choice"),
        ("RUN --archives nowhere", 2, "the task toy has no archive"),
        ("RUN --texts 4 --out FILE", 74, "FILE"),
        ("--analysis gradient", 2, "Folder of a finished run"),
    ],
)
def test_hostile(line, code, message, runs, tmp_path, one_line):
    (tmp_path / "FILE").write_text("mine")
    _, folder = runs("attention")
    arguments = line.replace("RUN", str(folder)).replace("FILE", str(tmp_path / "FILE")).split()
    one_line(analyse.main, arguments, code, message)
