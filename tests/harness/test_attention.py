"""Other attention: shuffled and adversarial scores against NumPy and scipy, over the parameters of the model."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance

from experiments import analyse
from experiments.analyses import ANALYSES
from experiments.analyses.permutation import shuffled
from experiments.data.text import Example
from experiments.layers.losses import jensen_shannon
from experiments.run.importance import cosine_of_states, measured
from tests.harness.test_analyses import EXAMPLES, runs  # noqa: F401  (a fixture)
from tests.harness.tiny import MASK, STATES, pooler_of

SCORED = ("attention", "dot_attention", "learned_norm", "log_learned_norm", "naive_norm")
RNG = np.random.default_rng(3)
LN2 = math.log(2)


def distributions(rows: int, words: int) -> np.ndarray:
    return RNG.dirichlet(np.full(words, 0.3), rows)


def test_the_divergence_is_that_of_scipy_and_at_most_ln_2():
    one, other = distributions(50, 6), distributions(50, 6)
    one[:9, 2:4], other[5:14, 0] = 0, 0
    one, other = (x / x.sum(axis=1, keepdims=True) for x in (one, other))
    found = jensen_shannon(jnp.asarray(one), jnp.asarray(other))
    expected = [distance.jensenshannon(*pair) ** 2 for pair in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert float(found.max()) <= LN2
    apart = jensen_shannon(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.4, 0.6]))
    assert float(apart) == pytest.approx(LN2)


def test_the_gradient_of_the_divergence_is_finite_where_weights_are_zero():
    """d JSD / d a_i = log(a_i / m_i) / 2 for a_i > 0, with m the mean of both."""
    one, other = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.1, 0.0, 0.9, 0.0])
    cotangent = RNG.normal()
    _, pullback = jax.vjp(lambda x: jensen_shannon(x, jnp.asarray(other)), jnp.asarray(one))
    (found,) = pullback(jnp.float32(cotangent))
    expected = cotangent * np.log(one[:2] / (one[:2] + other[:2]) * 2) / 2
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:2], expected, rtol=1e-4)


@pytest.mark.parametrize("name", SCORED)
def test_scores_take_the_place_of_those_of_the_pooler(name):
    pooler, states, mask = pooler_of(name), jnp.asarray(STATES), jnp.asarray(MASK)
    scores = pooler.scores(states, mask)
    pooled, shown = pooler(states, mask)
    again, others = pooler(states, mask, scores)
    np.testing.assert_array_equal(pooled, again)
    np.testing.assert_array_equal(shown["attention"], others["attention"])
    given = jnp.asarray(RNG.normal(size=MASK.shape), jnp.float32)
    _, shown = pooler(states, mask, given)
    p = float(getattr(pooler, "p", 1)) if name == "learned_norm" else 1
    expected = special.softmax(np.where(MASK, p * np.float64(given), -np.inf)[:3], axis=1)
    np.testing.assert_allclose(shown["attention"][:3], expected, rtol=1e-4, atol=1e-6)
    assert not np.asarray(shown["attention"])[~MASK].any()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SCORED)
def test_the_derivative_with_respect_to_scores(name):
    pooler, states, mask = pooler_of(name), jnp.asarray(STATES), jnp.asarray(MASK)
    scores, way, cotangent = (
        jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in (MASK.shape,) * 2 + ((4, 8),)
    )
    _, pullback = jax.vjp(lambda scores: pooler(states, mask, scores)[0], scores)
    (slope,) = pullback(cotangent)
    ends = [np.float64(pooler(states, mask, scores + step * way)[0]) for step in (0.02, -0.02)]
    expected = (np.float64(cotangent) * (ends[0] - ends[1])).sum() / 0.04
    assert float((slope * way).sum()) == pytest.approx(expected, rel=2e-2)
    assert not np.asarray(slope)[~MASK].any()


def test_shuffling_keeps_padding_and_the_scores_of_a_text():
    mask = np.arange(7) < np.array([7, 4, 1, 0])[:, None]
    scores = RNG.normal(size=(4, 7, 2))
    moved = np.asarray(shuffled(jnp.asarray(scores), jnp.asarray(mask), jnp.asarray(RNG.uniform(size=(4, 7)))))
    for row, (before, after) in enumerate(zip(np.float32(scores), moved, strict=True)):
        words = mask[row].sum()
        np.testing.assert_array_equal(before[words:], after[words:])
        assert sorted(map(tuple, before[:words])) == sorted(map(tuple, after[:words]))
    assert (moved[0] != np.float32(scores[0])).any()


def test_the_cosine_of_states_by_pairs():
    found = np.asarray(cosine_of_states(jnp.asarray(STATES), jnp.asarray(MASK)))
    for row in (0, 2):
        words = np.float64(STATES[row][MASK[row]])
        pairs = [1 - distance.cosine(*pair) for pair in itertools.combinations(words, 2)]
        assert found[row] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert not found[[1, 3]].any()  # of one word and of none


class ByHand:
    """The answer of a bag of word vectors under additive attention, in float64."""

    def __init__(self, trained):
        self.trained = trained
        linear = trained.objective.head.linear
        self.table, self.kernel, self.bias = (
            np.float64(part[...])
            for part in (trained.objective.encoder.words.table.embedding, linear.kernel, linear.bias)
        )

    def output(self, words, weights):
        vectors = self.table[self.trained.codec.vocabulary.encode(words)]
        return special.softmax(np.asarray(weights) @ vectors @ self.kernel + self.bias)

    def change(self, words, weights, others):
        return np.abs(self.output(words, weights) - self.output(words, others)).sum() / 2


def ask(name: str, trained, examples=EXAMPLES, **options):
    return ANALYSES[name](ANALYSES[name].Options(**options))(trained, iter(examples))


def test_a_shuffle_is_one_of_the_orders(runs):  # noqa: F811
    trained, _ = runs("attention")
    by_hand, words = ByHand(trained), ["small", "oak", "dog"]
    seen = set()
    for seed in range(4):
        (text,) = ask(
            "permutation", trained, [Example(" ".join(words), "plant", "test")], shuffles=1, seed=seed
        ).examples
        weights = text["words"]["attention"]
        orders = [by_hand.change(words, weights, order) for order in itertools.permutations(weights)]
        nearest = int(np.abs(np.array(orders) - text["change"]).argmin())
        assert text["change"] == pytest.approx(orders[nearest], abs=1e-5)
        seen.add(nearest)
    assert len(seen) > 1


def test_the_median_over_shuffles(runs):  # noqa: F811
    """Of two words half of the shuffles are the order itself; of an odd number the median is one of the two changes."""
    trained, _ = runs("attention")
    examples = [Example("small oak", "plant", "test"), *EXAMPLES]
    findings = ask("permutation", trained, examples, shuffles=31)
    for text in findings.examples:
        weights, words = text["words"]["attention"], text["text"].split()
        changes = changes_by_hand(ByHand(trained), words, weights)
        assert min(changes) - 1e-5 <= text["change"] <= max(changes) + 1e-5
        if len(words) == 2:
            assert min(abs(text["change"] - change) for change in changes) < 1e-5
    whole = findings.table[0]
    changes = [text["change"] for text in findings.examples]
    assert (whole["of the words"], whole["largest weight"], whole["texts"]) == ("attention", "all", len(changes))
    assert whole["median change"] == pytest.approx(np.median(changes))
    assert sum(row["texts"] for row in findings.table[1:]) == len(changes)
    tau = [text.measures["attention"].max() for some in measured(trained, iter(examples), 2) for text in some]
    assert [max(text["words"]["attention"]) for text in findings.examples] == pytest.approx(tau)


def changes_by_hand(by_hand, words, weights):
    """The changes of all orders of at most six words."""
    orders = itertools.permutations(weights) if len(words) < 7 else [weights, weights[::-1]]
    return [by_hand.change(words, weights, order) for order in orders]


@pytest.mark.parametrize("pooler", ["attention", pytest.param("learned_norm", marks=pytest.mark.slow)])
def test_the_adversary_keeps_the_output_and_changes_the_attention(pooler, runs):  # noqa: F811
    trained, _ = runs(pooler)
    options = {"steps": 60, "learning_rate": 0.1, "adversaries": 3}
    findings = ask("adversarial", trained, **options)
    assert len(findings.examples) == 4
    assert any(text["within"] and text["JSD"]["attention"] > 0.2 for text in findings.examples)
    for text in findings.examples:
        given, adversary = np.array(text["words"]["attention"]), np.array(text["adversary"]["attention"])
        np.testing.assert_allclose(adversary, special.softmax(text["scores"]), rtol=1e-3, atol=1e-6)
        if not text["within"]:
            assert set(text["JSD"].values()) == {0.0}
            continue
        assert text["change"] <= 0.05
        for name, found in text["JSD"].items():
            pair = text["words"][name], text["adversary"][name]
            assert found == pytest.approx(distance.jensenshannon(*pair) ** 2, abs=1e-5)
            assert found <= LN2
        if pooler == "attention":
            change = ByHand(trained).change(text["text"].split(), given, adversary)
            assert change == pytest.approx(text["change"], abs=1e-5)
        else:
            effective = special.softmax(float(trained.objective.p) * np.array(text["scores"]))
            np.testing.assert_allclose(text["adversary"]["effective"], effective, rtol=1e-3, atol=1e-6)
            assert change_by_model(trained, text) == pytest.approx(text["change"], abs=1e-5)
    row = next(row for row in findings.table if row["largest weight"] == "all")
    assert row["mean largest JSD"] == pytest.approx(np.mean([text["JSD"]["attention"] for text in findings.examples]))
    assert row["share found"] == np.mean([text["within"] for text in findings.examples])


def change_by_model(trained, text):
    """The change of the output when the formula of the paper pools the states with the attention of the adversary."""
    ((_, outputs),) = trained.outputs([text["text"]])
    p, linear = float(trained.objective.p), trained.objective.head.linear
    states = np.exp(np.tanh(np.float64(outputs["states"][0, : len(text["scores"])])))
    answers = []
    for attention in (text["words"]["attention"], text["adversary"]["attention"]):
        powers = np.array(attention)[:, None] ** p
        pooled = ((powers * states**p).sum(axis=0) / powers.sum(axis=0)) ** (1 / p) - 1
        answers.append(special.softmax(pooled @ np.float64(linear.kernel[...]) + np.float64(linear.bias[...])))
    return np.abs(answers[0] - answers[1]).sum() / 2


def test_the_search_finds_what_is_known_to_be_there(runs):  # noqa: F811
    """Of equal words every attention gives the same output: the search comes near to the bound, all on one word."""
    trained, _ = runs("attention")
    findings = ask("adversarial", trained, [EXAMPLES[5]], steps=200, learning_rate=0.3)
    (text,) = findings.examples
    assert text["words"]["attention"] == pytest.approx([1 / 3] * 3, abs=1e-5)
    most = distance.jensenshannon([1 / 3] * 3, [1, 0, 0]) ** 2
    assert 0.95 * most < text["JSD"]["attention"] <= most + 1e-6
    assert text["change"] < 1e-5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("MEAN --analysis permutation", "needs a pooling by scores of the words"),
        ("MEAN --analysis adversarial", "needs a pooling by scores of the words"),
        ("RUN --analysis adversarial --ask.weight effective", "--ask.weight effective: the pooling has attention."),
        ("RUN --analysis adversarial --ask.epsilon -1", "--ask.epsilon -1.0 is outside its range"),
        ("RUN --analysis permutation --ask.shuffles 0", "--ask.shuffles 0 is outside its range"),
        ("RUN --analysis permutation --ask.seed x", "--ask.seed"),
    ],
)
def test_hostile(line, message, runs, one_line):  # noqa: F811
    for name, pooler in (("MEAN", "mean"), ("RUN", "attention")):
        line = line.replace(name, str(runs(pooler)[1])) if name in line else line
    one_line(analyse.main, line.split(), 2, message)


@pytest.mark.slow
def test_the_command_writes_a_picture(runs, tmp_path, capsys):  # noqa: F811
    _, folder = runs("attention")
    for name, steps in (("permutation", "--ask.shuffles"), ("adversarial", "--ask.steps")):
        line = [str(folder), "--analysis", name, "--texts", "5", "--out", str(tmp_path), steps, "3"]
        assert analyse.main(line) == 0
        assert (tmp_path / f"{name}-test.png").stat().st_size > 10_000
        assert "| attention | all |" in capsys.readouterr().out
