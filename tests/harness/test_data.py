"""The embedded data, its split, and the order of the batches."""

import hashlib
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from experiments.base.errors import DataError
from experiments.data.corpus import Corpus
from experiments.data.extract_wordnet import extract
from experiments.data.text import Example, Vocabulary, split_words
from experiments.data.text_task import TextOptions, TextTask, bucket_widths
from experiments.run import build
from experiments.tasks import wordnet
from experiments.train import main


@pytest.fixture(scope="module")
def examples():
    return wordnet.read()


@pytest.fixture
def corpus():
    random = np.random.default_rng(1)
    texts = [random.integers(2, 99, length).tolist() for length in random.integers(0, 12, 100)]
    return Corpus([[text] for text in texts], np.arange(100) % 3, widths=[3, 6, 10], batch_size=8)


def test_the_split_is_fixed(examples):
    assert Counter(example.split for example in examples) == {"train": 50273, "validation": 6269, "test": 6179}
    assert len({example.target for example in examples}) == 10


def test_no_gloss_is_in_two_splits(examples):
    texts = {split: set() for split in ("train", "validation", "test")}
    for example in examples:
        texts[example.split].add(" ".join(split_words(example.text)))
    for one, other in itertools.combinations(texts.values(), 2):
        assert not one & other


def test_a_changed_data_file_is_refused(tmp_path):
    changed = bytearray(wordnet.PATH.read_bytes())
    changed[1000] ^= 1
    (tmp_path / "glosses.xz").write_bytes(changed)
    with pytest.raises(DataError, match=r"glosses.xz has sha256 \w{12}, not 88ae51eb17ce: restore it"):
        wordnet.read(tmp_path / "glosses.xz")
    with pytest.raises(DataError, match="is missing: restore it"):
        wordnet.read(tmp_path / "absent.xz")


def test_bad_data_is_exit_code_65(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wordnet, "SHA256", "0" * 64)
    assert main(["--out", str(tmp_path / "run")]) == 65
    error = capsys.readouterr().err
    assert error.startswith("experiments.train: wordnet_glosses.tsv.xz has sha256")
    assert error.count("\n") == 1


def test_extraction_keeps_the_first_of_equal_glosses(tmp_path):
    lines = [
        "  1 A notice  ",
        '00000002 05 n 01 cat 0 000 | a small feline; "the  cat sat"  ',
        "00000001 04 n 01 act 0 000 | something done  ",
        '00000003 05 n 01 cat 0 000 | A small feline: "the cat sat"  ',
    ]
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    table, notice = extract(tmp_path)
    assert table == '00000001\tact\tsomething done\n00000002\tanimal\ta small feline; "the cat sat"\n'
    assert notice == "A notice\n"


def test_vocabulary():
    vocabulary = Vocabulary.count([["b", "a", "b"], ["c", "a"]], min_count=2)
    assert vocabulary.words == ("a", "b")
    assert len(vocabulary) == 4
    assert vocabulary.encode(["b", "c", "a"]) == [3, 1, 2]


def test_an_epoch_holds_every_text_once(corpus):
    seen = Counter()
    for step in range(corpus.batches_per_epoch):
        batch = corpus.shuffled(seed=3, step=step)
        for tokens, mask, weight in zip(*map(np.asarray, (batch.tokens, batch.mask, batch.weights)), strict=True):
            if weight:
                seen[tuple(tokens[mask])] += 1
            else:
                assert not mask.any()
    assert seen == Counter(tuple(row[:length]) for row, length in zip(corpus.tokens, corpus.lengths, strict=True))


def test_the_batch_is_a_function_of_seed_and_step(corpus):
    forwards = [np.asarray(corpus.shuffled(5, step).tokens) for step in range(2 * corpus.batches_per_epoch)]
    for step in reversed(range(len(forwards))):
        np.testing.assert_array_equal(corpus.shuffled(5, step).tokens, forwards[step])
    first, second = forwards[: corpus.batches_per_epoch], forwards[corpus.batches_per_epoch :]
    assert any(one.shape != other.shape or (one != other).any() for one, other in zip(first, second, strict=True))


def test_the_order_is_the_known_one(corpus):
    digest = hashlib.sha256()
    for step in range(2 * corpus.batches_per_epoch):
        digest.update(np.asarray(corpus.shuffled(seed=0, step=step).tokens).tobytes())
    # A change here changes the result of every run that was ever reported.
    assert digest.hexdigest()[:16] == "31878f0b2d03d162"


def test_the_noise_is_the_known_one():
    keys = [build.stream(seed, name) for seed in (0, 7) for name in ("init", "dropout")]
    bits = [jax.random.bits(jax.random.fold_in(key, step), (4,)) for key in keys for step in (0, 1)]
    assert hashlib.sha256(np.stack(bits).tobytes()).hexdigest()[:16] == "de496c5546a58a2a"


def test_shapes_are_as_many_as_buckets(corpus):
    shapes = {corpus.shuffled(0, step).tokens.shape for step in range(corpus.batches_per_epoch)}
    assert shapes == {(8, 3), (8, 6), (8, 10)}
    assert {batch.tokens.shape for batch in corpus.in_order()} == shapes
    assert sum(int(batch.weights.sum()) for batch in corpus.in_order()) == 100


def test_empty_and_long_texts_are_kept_and_counted():
    corpus = Corpus([[[]], [[5, 6], [7, 8]]], np.array([1, 0]), widths=[3], batch_size=2)
    assert (corpus.empty, corpus.truncated) == (1, 1)
    batch = next(corpus.in_order())
    np.testing.assert_array_equal(batch.tokens, [[0, 0, 0], [5, 6, 7]])
    np.testing.assert_array_equal(batch.mask, [[False] * 3, [True] * 3])
    np.testing.assert_array_equal(batch.weights, [1, 1])


def test_buckets_are_bounded_by_the_option():
    assert bucket_widths([4] * 10, buckets=3, max_len=20) == [4, 20]
    assert bucket_widths([30] * 10, buckets=3, max_len=20) == [20]


def test_a_split_without_texts_is_an_error():
    with pytest.raises(DataError, match="the validation split has no examples"):
        TextTask(TextOptions(), [Example("a cat", "animal", "train")])
