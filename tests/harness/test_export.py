"""Exports: the loader, without anything but jax and numpy, says bit for bit what the trained model says."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import venv

import jax
import numpy as np
import pytest

from experiments import export, predict
from experiments.base.errors import DataError
from experiments.base.safetensors import encode
from experiments.run import loader
from experiments.run.trained import load, load_export, load_run
from experiments.tasks import TASKS
from tests.harness.test_objectives import TOYS
from tests.harness.untrained import saved, untrained

TEXTS = [
    *(
        "the small oak",
        "cat",
        "",
        "unheard of \u2014 words",
        "\tDOG's oak_fern",
        "A cat. An OAK! (Moss?) \u0391\u03a3. ",
    ),
    "a saw. The file of a cat in the large moss? " * 3,
] * 6
"""More than a batch, of all widths, with sentences of all lengths."""
SHORT = ["--data.max-len", "2"]
TAGS, NUMBERS = ["--task", "toy_tags", "--objective", "multilabel"], ["--task", "toy_numbers", "--objective", "regress"]
RUNS = {
    "classify": ["--pooler", "learned_norm"],
    "sentences": ["--encoder", "han", "--encode.embedding", "8", "--encode.features", "8", "--data.shortest", "3"],
    "multilabel": [*TAGS, "--pooler", "attention", "--head.normalise", "spectral", *SHORT],
    "regress": [*NUMBERS, "--pooler", "max", "--head.normalise", "weight", *SHORT],
    "language_model": ["--objective", "language_model", *SHORT],
}
ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flax", "lnpool", "experiments", "optax", "flatbuffers", "jaxtyping"):
            raise ModuleNotFoundError(name)
if len(sys.argv) > 2:
    sys.meta_path.insert(0, Blocked())
found = {}
for folder in json.loads(sys.argv[1]):
    sys.path.insert(0, folder)
    sys.modules.pop("loader", None)
    import loader
    model, texts = loader.Model(folder), json.load(sys.stdin) if not found else texts
    pooled = [answer["pooled"].tolist() for answer in model.answers(texts) if "pooled" in answer]
    found[folder] = model.predict(texts), pooled
    sys.path.pop(0)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A model and the folder of its export, by name."""
    made, folder = {}, tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        for name, toy in TOYS.items():
            patch.setitem(TASKS, name, toy)
        for name, options in RUNS.items():
            trained = untrained(*options)
            run = saved(trained, folder / f"{name}-run")
            assert export.main([str(run), "--out", str(folder / name)]) == 0
            made[name] = trained, folder / name
    return made


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for name, toy in TOYS.items():
        monkeypatch.setitem(TASKS, name, toy)


def said(python, folders, *arguments) -> dict:
    """What the loaders say in a process of its own, which finds nothing of this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [str(python), "-c", ALONE, json.dumps([str(folder) for folder in folders]), *arguments]
    found = subprocess.run(
        line, input=json.dumps(TEXTS), env=environment | {"JAX_PLATFORMS": "cpu"}, cwd=folders[0], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def agrees(name, trained, predicted, pooled):
    """Every number is the same: what JSON holds of a float32 is exact."""
    answers = [*trained.answers(TEXTS)]
    if "pooled" in answers[0]:
        np.testing.assert_array_equal(np.float32(pooled), np.concatenate([found["pooled"] for found in answers]))
    for found, record in zip(predicted, trained.predict(TEXTS), strict=True):
        if name in ("classify", "sentences"):
            label = max(found, key=found.get)
            assert record == {"label": label, "probability": found[label]}
        elif name == "multilabel":
            assert record["tags"] == {tag: found[tag] for tag in record["tags"]}
            assert all(number <= 0.5 for tag, number in found.items() if tag not in record["tags"])
        elif name == "regress":
            assert record == found
        else:
            perplexity = float(np.exp(np.float32(found["nats"]) / np.int32(found["words"]))) if found["words"] else None
            assert record["perplexity"] == perplexity


def test_bit_for_bit_without_this_project(exports):
    found = said(sys.executable, [folder for _, folder in exports.values()], "blocked")
    for name, (trained, folder) in exports.items():
        agrees(name, trained, *found[str(folder)])


@pytest.mark.slow
def test_bit_for_bit_with_jax_and_numpy_alone(exports, tmp_path):
    venv.create(tmp_path / "alone", with_pip=True)
    python = tmp_path / "alone" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"jax=={jax.__version__}", "numpy"], check=True)
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True).stdout
    assert not {"flax", "lnpool", "flatbuffers", "optax"} & {package["name"] for package in json.loads(listed)}
    found = said(python, [folder for _, folder in exports.values()])
    for name, (trained, folder) in exports.items():
        agrees(name, trained, *found[str(folder)])


def test_an_export_is_a_run_to_predict(exports, tmp_path, capsys):
    trained, folder = exports["classify"]
    (tmp_path / "a.txt").write_text("cat\noak\n")
    assert predict.main([str(folder), str(tmp_path / "a.txt")]) == 0
    out = capsys.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == list(trained.predict(["cat", "oak"]))
    assert load(folder).config == load_export(str(folder)).config


def test_jax_reads_the_programs_for_any_number_of_rows(exports):
    trained, folder = exports["classify"]
    facts = json.loads((folder / "programs.json").read_text())["programs"][-1]
    program = jax.export.deserialize(bytearray((folder / facts["file"]).read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    model = loader.Model(folder)
    (batch,) = trained.codec.encode(["the small oak and a cat of moss"])
    rows = [np.asarray(leaf)[:1] for leaf in jax.tree.leaves(batch)]
    found = program.call(model.parameters, rows)
    (want,) = trained.predict(["the small oak and a cat of moss"])
    assert found["predictions"].shape == (1, 3)
    assert float(found["predictions"].max()) == pytest.approx(want["probability"], rel=1e-5)


def test_the_file_of_parameters_keeps_the_rules_of_the_format(exports):
    _, folder = exports["sentences"]
    content = (folder / "parameters.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert content[8:9] == b"{"
    assert size % 8 == 0
    header = json.loads(content[8 : 8 + size])
    places = sorted(entry["data_offsets"] for entry in header.values())
    assert [0, *(stop for _, stop in places)] == [*(start for start, _ in places), len(content) - 8 - size], "no gaps"
    with np.load(folder.with_name("sentences-run") / "parameters.npz") as arrays:
        assert header.keys() == {*arrays}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            assert entry["dtype"] == "F32"
            found = np.frombuffer(content[8 + size :][start:stop], "<f4").reshape(entry["shape"])
            np.testing.assert_array_equal(found, arrays[name])


def test_one_text_is_no_list_of_letters(exports):
    _, folder = exports["classify"]
    model = loader.Model(folder)
    assert model.predict("cat") == model.predict(["cat"])
    assert model.predict([]) == []


def test_the_loader_is_short_and_needs_nothing(exports):
    _, folder = exports["classify"]
    source = (folder / "loader.py").read_text()
    assert source.count("\n") <= 70
    assert runpy.run_path(str(folder / "loader.py"))["Model"].__doc__
    assert (folder / "loader.py").read_text() == source


def test_nothing_of_this_machine_is_exported(exports, tmp_path):
    trained = untrained("--out", str(tmp_path / "secret"), "--save.minutes", "1")
    run = saved(trained, tmp_path / "run")
    assert export.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert not [path.name for path in (tmp_path / "out").iterdir() if str(tmp_path).encode() in path.read_bytes()]
    assert load(tmp_path / "out").config.save.minutes != 1
    assert load(tmp_path / "out").config.encode == trained.config.encode


@pytest.mark.parametrize("name", ["parameters.safetensors", "vocabulary.json", "config.json", "program_3.bin"])
def test_a_damaged_export(name, exports, tmp_path, capsys):
    folder = shutil.copytree(exports["classify"][1], tmp_path / "export")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{name} is not as it was written"):
        loader.Model(folder)
    with pytest.raises(DataError, match=f"{name} has another SHA-256"):
        load(folder)
    (tmp_path / "a.txt").write_text("cat\n")
    assert predict.main([str(folder), str(tmp_path / "a.txt")]) == 65
    assert capsys.readouterr().err.count("\n") == 1


HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\xff" * 8 + HEADER, "cut short"),
        (b"\x08" + b"\0" * 7 + b"\x80\x04\x95pickle", "is not JSON"),
        (len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 7, "no place of its own"),
        (len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 9, "1 bytes that belong to no array"),
        (b"\x07" + b"\0" * 7 + b'{"a":3}', "its header has no valid dtype, shape and data_offsets of array 'a'"),
        (encode({"a": np.zeros(3, np.float32)}), "has shape (3,), expected (2,)"),
        (encode({"a": np.zeros(2, np.int32)}), "has the type int32, expected float32"),
        (encode({"b": np.zeros(2, np.float32)}), "lacks parameter 'a'"),
    ],
)
def test_hostile_parameters(content, message):
    from flax import nnx

    from experiments.storage.safetensors import parse

    with pytest.raises(DataError) as raised:
        parse(content, "f", nnx.State({"a": nnx.Param(np.zeros(2, np.float32))}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("nowhere --out OUT", 65, "nowhere does not exist"),
        ("RUN", 2, "--out"),
        ("RUN --out RUN", 2, "exists and is not an empty folder: choose another one."),
        ("RUN --out FILE", 2, "exists and is not an empty folder: choose another one."),
        ("RUN --out FILE/out", 74, "FILE"),
        ("EXPORT --out OUT", 65, "is an export: give the folder of a finished run."),
    ],
)
def test_hostile(line, code, message, exports, tmp_path, one_line):
    (tmp_path / "FILE").write_text("mine")
    _, folder = exports["classify"]
    places = {"RUN": folder.with_name("classify-run"), "EXPORT": folder, "OUT": tmp_path / "out"}
    places["FILE"] = tmp_path / "FILE"
    for name, path in places.items():
        line = line.replace(name, str(path))
    before = {path: path.read_bytes() for path in folder.with_name("classify-run").iterdir()}
    one_line(export.main, line.split(), code, message)
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    assert (tmp_path / "FILE").read_text() == "mine"
    assert before == {path: path.read_bytes() for path in folder.with_name("classify-run").iterdir()}


def test_a_model_that_an_export_has_no_names_for(monkeypatch, tmp_path, capsys):
    from experiments.objectives import OBJECTIVES
    from tests.harness.outside import Margin

    monkeypatch.setitem(OBJECTIVES, "margin", Margin)
    run = saved(untrained("--objective", "margin"), tmp_path / "run")
    assert export.main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "the objective margin predicts what an export has no names for." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_export_needs_flatbuffers(monkeypatch, exports, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    run = exports["classify"][1].with_name("classify-run")
    assert export.main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "an export needs flatbuffers" in capsys.readouterr().err
    assert load_run(str(run)).config == exports["classify"][0].config
