"""Sentences: where they end, how tokens become rows of them, and the hierarchy against a loop over sentences."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.base.errors import UsageError
from experiments.data.corpus import Corpus, SentenceShape
from experiments.data.text import PADDING, Example, split_sentences
from experiments.data.text_task import TextOptions, TextTask
from experiments.encoders import ENCODERS
from experiments.encoders.han import HAN, HANOptions
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
    assert split_sentences(text) == [sentence.split() for sentence in sentences]


def rows_of(lengths, shortest, longest):
    """The words of a text, numbered from 1, in rows, in plain Python."""
    rows, number = [[]], 0
    for length in lengths:
        for _ in range(length):
            number += 1
            if len(rows[-1]) == longest:
                rows.append([])
            rows[-1].append(number)
        if len(rows[-1]) >= shortest:
            rows.append([])
    return [row for row in rows if row]


SIZES = [(1, 1), (1, 3), (3, 2), (2, 5), (4, 4), (8, 32)]


def texts_of(random, words):
    """Thirty texts of sentences, of at most so many words."""
    texts = []
    for _ in range(30):
        number = int(random.integers(0, words + 1))
        ends = sorted(random.integers(0, number + 1, int(random.integers(0, 5))))
        texts.append([int(length) for length in np.diff([0, *ends, number]) if length])
    return texts


@pytest.mark.parametrize(("shortest", "longest"), SIZES)
def test_no_word_is_lost(shortest, longest):
    texts = texts_of(np.random.default_rng(0), 13)
    numbered = []
    for lengths in texts:
        words = iter(range(1, 14))
        numbered.append([[next(words) for _ in range(length)] for length in lengths])
    corpus = Corpus(numbered, np.arange(30), [13], 30, SentenceShape(shortest, longest))
    (batch,) = corpus.in_order()
    for row, mask, lengths in zip(batch.tokens, batch.mask, texts, strict=True):
        expected = rows_of(lengths, shortest, min(longest, 13))
        assert [words[real].tolist() for words, real in zip(row, mask, strict=True) if real.any()] == expected


def han_of(**options):
    options, rngs = HANOptions(**{"embedding": 8, "features": 8} | options), nnx.Rngs(0)
    return HAN(options, WordEmbedding(options, 30, rngs=rngs), rngs=rngs)


@pytest.mark.parametrize(("pooler", "by_hand"), [("mean", np.mean), ("max", np.max)])
def test_a_hierarchy_of_bags_is_a_loop_over_sentences(pooler, by_hand):
    han = han_of(word_encoder="bag", word_pooler=pooler, sentence_encoder="bag")
    random = np.random.default_rng(1)
    mask = np.arange(4) < random.integers(0, 5, (5, 6, 1))
    mask[3] = False
    tokens = np.where(mask, random.integers(2, 30, mask.shape), PADDING)
    top = POOLERS[pooler](POOLERS[pooler].Options(), 8, rngs=nnx.Rngs(0))
    pooled, _ = top(*han(jnp.asarray(tokens), jnp.asarray(mask)))
    table = np.asarray(han.sentences.words.encoder.words.table.embedding[...], float)
    for row, real, got in zip(tokens, mask, np.asarray(pooled), strict=True):
        sentences = [by_hand(table[words[kept]], axis=0) for words, kept in zip(row, real, strict=True) if kept.any()]
        expected = by_hand(sentences, axis=0) if sentences else np.zeros(8)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"han"}))
def test_every_encoder_serves_at_both_levels(name):
    han = han_of(word_encoder=name, sentence_encoder=name, embedding=48, features=48)  # heads and chunks divide it
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


def test_batches_have_the_shape_that_the_encoder_reads():
    assert default_config(encoder="han").data.sentences
    assert not default_config().data.sentences
    assert from_json('{"encoder": "han"}').data.sentences
    for line, message in [
        (["--encoder", "han", "--data.no-sentences"], "reads batches of sentences: give --data.sentences."),
        (["--data.sentences"], "the encoder bigru reads batches of words: leave out --data.sentences."),
    ]:
        with pytest.raises(UsageError, match=message):
            build.objective(parse_args(line), {"words": 9, "classes": 2})


def test_sentences_are_a_shape_of_batches():
    examples = [Example("a b. a", str(n % 2), split) for n, split in enumerate(["train", "validation", "test"] * 4)]
    shapes = [
        next(
            TextTask(TextOptions(sentences=sentences, shortest=1, longest=2, max_len=6, buckets=1), examples).batches(
                "test"
            )
        )
        for sentences in (False, True)
    ]
    assert [shape.tokens.shape[1:] for shape in shapes] == [(6,), (6, 2)]
    assert shapes[0].tokens[0].tolist() == [2, 3, 2, 0, 0, 0]
    assert shapes[1].tokens[0].tolist() == [[2, 3], [2, 0], *[[0, 0]] * 4]


@pytest.mark.slow
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
    assert len(list(run.predict([text]))) == 1
