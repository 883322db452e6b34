"""Sentences: where they end, how tokens become rows of them, and the hierarchy against a loop over sentences."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.base.errors import UsageError
from experiments.data.text import PADDING, Example, split_sentences
from experiments.data.text_task import TextOptions, TextTask
from experiments.encoders import ENCODERS
from experiments.encoders.han import HAN, HANOptions, by_sentence
from experiments.layers.words import WordEmbedding
from experiments.poolers import POOLERS
from experiments.run import build
from experiments.run.config import default_config, from_json, parse_args
from experiments.run.trained import load_run
from experiments.train import main
from tests.harness.conftest import TINY


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is 2.5. So?  Yes!", ["it is 2 5", "so", "yes"]),
        ('He said "No." (And left.) e.g', ["he said no", "and left", "e g"]),
        ("a film\n\nof two lines . . .\n", ["a film", "of two lines"]),
        ("no marks at all", ["no marks at all"]),
        ("wait... what\u2026 now", ["wait", "what", "now"]),
        ("... !\n", []),
    ],
)
def test_where_sentences_end(text, sentences):
    assert split_sentences(text) == f" {END} ".join(sentences).split()


def cut(row, shortest, longest):
    """The sentences of one text, in plain Python."""
    sentences = [[]]
    for token in row:
        if token == SENTENCE_END:
            if len(sentences[-1]) >= shortest:
                sentences.append([])
        else:
            if len(sentences[-1]) == longest:
                sentences.append([])
            sentences[-1].append(int(token))
    return [sentence for sentence in sentences if sentence]


SIZES = [(1, 1), (1, 3), (3, 2), (2, 5), (4, 4), (8, 32)]


@pytest.mark.parametrize(("shortest", "longest"), SIZES)
def test_no_word_is_lost(shortest, longest):
    random = np.random.default_rng(0)
    tokens = random.choice([SENTENCE_END, 3, 4, 5, 6], size=(200, 13), p=[0.3, 0.2, 0.2, 0.2, 0.1])
    mask = np.arange(13) < random.integers(0, 14, (200, 1))
    grid = np.asarray(by_sentence(jnp.asarray(tokens), jnp.asarray(mask), shortest, longest))
    for row, real, sentences in zip(tokens, mask, grid, strict=True):
        expected = cut(row[real], shortest, longest)
        assert [[token for token in words if token != PADDING] for words in sentences.tolist()] == expected + [[]] * (
            len(sentences) - len(expected)
        )


def han_of(**options):
    options, rngs = HANOptions(embedding=8, features=8, **options), nnx.Rngs(0)
    return HAN(options, WordEmbedding(options, 30, rngs=rngs), rngs=rngs)


@pytest.mark.parametrize(("pooler", "by_hand"), [("mean", np.mean), ("max", np.max)])
def test_a_hierarchy_of_bags_is_a_loop_over_sentences(pooler, by_hand):
    han = han_of(word_encoder="bag", word_pooler=pooler, sentence_encoder="bag", shortest=2, longest=4)
    random = np.random.default_rng(1)
    tokens = random.choice([SENTENCE_END, *range(3, 30)], size=(5, 20), p=[0.19] + 27 * [0.03])
    mask = np.arange(20) < np.array([[20], [7], [1], [0], [13]])
    top = POOLERS[pooler](POOLERS[pooler].Options(), 8, rngs=nnx.Rngs(0))
    pooled, _ = top(*han(jnp.asarray(tokens), jnp.asarray(mask)))
    table = np.asarray(han.sentences.words.encoder.words.table.embedding[...], float)
    for row, real, got in zip(tokens, mask, np.asarray(pooled), strict=True):
        sentences = [by_hand(table[words], axis=0) for words in cut(row[real], 2, 4)]
        expected = by_hand(sentences, axis=0) if sentences else np.zeros(8)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"han"}))
def test_every_encoder_serves_at_both_levels(name):
    han = han_of(word_encoder=name, sentence_encoder=name)
    kinds = [type(level) for level in (han.sentences, han.sentences.words.encoder)]
    assert kinds == [ENCODERS[name]] * 2
    assert type(han.sentences.words.pooler) is POOLERS["attention"]


MISTAKES = [
    ({"word_encoder": "han"}, "han reads sentences"),
    ({"sentence_encoder": "bigruu"}, "unknown encoder of words or sentences 'bigruu': did you mean 'bigru'?"),
    ({"word_pooler": "men"}, "unknown word pooler 'men': did you mean 'mean'?"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_parts_that_do_not_exist(options, message):
    with pytest.raises(UsageError) as caught:
        han_of(**options)
    assert str(caught.value).startswith(message)


def test_sentence_ends_are_kept_for_the_encoder_that_needs_them():
    assert default_config(encoder="han").data.sentences
    assert not default_config().data.sentences
    assert from_json('{"encoder": "han"}').data.sentences
    config = parse_args(["--encoder", "han", "--data.no-sentences"])
    with pytest.raises(UsageError, match=r"the encoder han needs the ends of sentences: give --data.sentences\."):
        build.model(config, 9, 2)


def test_the_end_of_a_sentence_has_its_own_row():
    examples = [Example("a b. a", str(n % 2), split) for n, split in enumerate(["train", "validation", "test"] * 4)]
    for sentences in (True, False):
        task = TextTask(TextOptions(sentences=sentences), examples)
        assert (task.vocabulary.encode([END]) == [SENTENCE_END]) == sentences
        assert task.vocabulary.words == ((END, "a", "b") if sentences else ("a", "b"))
    unmarked = TextTask(TextOptions(sentences=True), [row._replace(text="a") for row in examples])
    assert unmarked.vocabulary.words == (END, "a")


def test_a_run_that_reads_sentences(tmp_path):
    line = [part for part in TINY if part != "bag"]
    line[line.index("--encoder")] = "--encoder=han"
    small = [
        "--encode.embedding=8",
        "--encode.word-encoder=bag",
        "--encode.sentence-encoder=cnn",
        "--epochs=1",
        "--data.buckets=1",
    ]
    assert main([*line, *small, "--encode.word-pooler=max", "--pooler=mean", "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    assert run.config.data.sentences
    text = "the oak. of the saw\na small crow"
    assert len(run.predict([text])) == 1
