"""Checkpoints on disk: what is written is what is loaded, and damage is found, told and stepped over."""

import contextlib
import itertools
import json
import os
import random
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.base.errors import DataError
from experiments.storage import checkpoints, manifest
from experiments.storage.checkpoints import load, named, newest, retire, steps, sweep, verify, write
from experiments.storage.manifest import MANIFEST


def tree_of(step):
    """Leaves of several types, shapes and depths; None has no leaf."""
    numbers = np.random.default_rng(step)
    return (
        {"layer": {"w": jnp.asarray(numbers.normal(size=(40, 30)), jnp.float32), "half": jnp.ones(7, jnp.bfloat16)}},
        [jnp.int32(step), None, jnp.asarray(numbers.integers(0, 9, (3, 2)))],
    )


def same(one, other):
    return all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    for step in (10, 20):
        write(folder, step, tree_of(step), {"note": f"facts of {step}", "pi": 0.1 + 0.2})
    return folder


def test_what_is_written_is_loaded(two_steps):
    loaded, facts = load(two_steps / "20", tree_of(1))
    assert same(loaded, tree_of(20))
    assert jax.tree.structure(loaded) == jax.tree.structure(tree_of(1))
    assert facts == {"note": "facts of 20", "pi": 0.30000000000000004}
    assert [path.name for path in steps(two_steps)] == ["20", "10"]


def test_another_model_is_refused_by_name(two_steps):
    other = tree_of(1)
    other[0]["layer"]["w"] = jnp.ones((3, 3))
    with pytest.raises(
        DataError, match=r"holds float32\[40, 30\] as '0.layer.w', this program expects float32\[3, 3\]"
    ):
        load(two_steps / "20", other)
    del other[0]["layer"]["w"]
    with pytest.raises(DataError, match=r"this program expects nothing\."):
        load(two_steps / "20", other)
    assert sorted(named(tree_of(1))) == ["0.layer.half", "0.layer.w", "1.0", "1.2"]


def files_of(path):
    return sorted(file for file in path.rglob("*") if file.is_file())


def flip_a_bit(path, dice):
    """One bit of the checkpoint: of a random file, or of a random byte, so that small and large files are hit."""
    files = [file for file in files_of(path) if file.stat().st_size]
    weights = [file.stat().st_size for file in files] if dice.random() < 0.5 else None
    (file,) = dice.choices(files, weights)
    content = bytearray(file.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(content)


def truncate(path, dice):
    file = dice.choice([file for file in files_of(path) if file.stat().st_size])
    file.write_bytes(file.read_bytes()[: dice.randrange(file.stat().st_size)])


def delete(path, dice):
    dice.choice(files_of(path)).unlink()


DAMAGE = {flip_a_bit: (12, 200), truncate: (5, 50), delete: (5, 50)}


def rejected(damage, trials, source, place):
    """Number of damaged checkpoints that were found; every time the step before must be what is loaded."""
    dice, found = random.Random(damage.__name__), 0
    for trial in range(trials):
        run = place / f"{damage.__name__}{trial}"
        shutil.copytree(source, run / "checkpoints")
        damage(run / "checkpoints" / "20", dice)
        path, sentences = newest(run / "checkpoints", run / "quarantine")
        loaded, _ = load(path, tree_of(1))
        found += path.name == "10" and same(loaded, tree_of(10)) and (run / "quarantine" / "20").is_dir()
        assert len(sentences) == 1
        assert sentences[0].startswith("checkpoint 20 is damaged (")
        assert sentences[0].count("\n") == 0
        shutil.rmtree(run)
    return found


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_found_and_stepped_over(damage, two_steps, tmp_path):
    trials, _ = DAMAGE[damage]
    assert rejected(damage, trials, two_steps, tmp_path) == trials


@pytest.mark.slow
def test_much_damage(two_steps, tmp_path):
    for damage, (_, trials) in DAMAGE.items():
        found = rejected(damage, trials, two_steps, tmp_path)
        print(f"\n{damage.__name__}: {trials} trials, {found} found, {trials - found} loaded silently", end="")
        assert found == trials


def signed(path, **changes):
    """Change the manifest of a checkpoint as one would who knows its form."""
    facts = {name: value for name, value in json.loads((path / MANIFEST).read_text()).items() if name != "sha256"}
    content = json.loads(manifest.text_for(path, facts)) | changes
    del content["sha256"]
    (path / MANIFEST).write_text(json.dumps({"sha256": manifest._digest(content), **content}))


def test_a_form_that_is_unknown_here_is_one_line(two_steps, tmp_path, capfd):
    """As another version of orbax would write it; its manifest is right."""
    path = shutil.copytree(two_steps / "20", tmp_path / "20")
    (path / "arrays" / "_METADATA").write_bytes(b"\x80 a form of later")
    signed(path)
    verify(path)
    with pytest.raises(DataError, match=r"^checkpoint 20 has the form of another version \(.+\)\.$"):
        load(path, tree_of(1))
    assert "Traceback" not in capfd.readouterr().err
    for wrong in ({"files": [1]}, {"arrays": None}):
        signed(path, **wrong)
        with pytest.raises(DataError, match=r"manifest.json is missing or damaged"):
            verify(path)


def test_whitespace_in_the_manifest_is_no_damage_but_a_changed_list_is(two_steps, tmp_path):
    path = tmp_path / "20"
    shutil.copytree(two_steps / "20", path)
    content = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(content, indent=7))
    verify(path)
    del content["files"]["facts.json"]
    (path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"manifest.json was changed"):
        verify(path)
    with pytest.raises(DataError, match=r"manifest.json was changed"):
        verify(shutil.copytree(two_steps / "20", tmp_path / "30"))
    (path / MANIFEST).write_text("[1]")
    with pytest.raises(DataError, match=r"manifest.json is missing or damaged"):
        verify(path)
    shutil.copytree(two_steps / "10", tmp_path / "10")
    (tmp_path / "10" / "stranger").write_text("")
    with pytest.raises(DataError, match="stranger does not belong there"):
        verify(tmp_path / "10")


def test_the_newest_steps_stay_and_rests_go(two_steps, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_steps, folder)
    for rest in (".partial-30", ".trash-5"):
        (folder / rest).mkdir()
        (folder / rest / "file").write_text("half")
    assert [path.name for path in steps(folder)] == ["20", "10"], "rests are never listed"
    sweep(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]
    retire(folder, 1)
    assert [path.name for path in folder.iterdir()] == ["20"]


def test_a_kill_at_any_point_of_retention_leaves_no_half_step(two_steps, tmp_path, monkeypatch):
    """Every call of the file system that deletes is where a kill comes, one after the other."""

    class Killed(BaseException):
        pass

    calls = {name: getattr(os, name) for name in ("rename", "unlink", "rmdir")}
    points = 0
    for last in itertools.count():
        folder, done = tmp_path / str(last), []
        shutil.copytree(two_steps, folder)
        with monkeypatch.context() as patch:
            for name, call in calls.items():

                def killed(*arguments, call=call, done=done, last=last, **options):
                    if len(done) == last:
                        raise Killed
                    done.append(call)
                    return call(*arguments, **options)

                patch.setattr(os, name, killed)
            with contextlib.suppress(Killed):
                retire(folder, 1)
                break
        for path in steps(folder):
            verify(path)
        assert steps(folder)[0].name == "20"
        assert [path.name for path in steps(folder)] == ["20", "10"][: 2 if last == 0 else 1]
        sweep(folder)
        assert not list(folder.glob(".*"))
        points += 1
    assert points > 10, "a rename, and what removes every file and folder of a checkpoint"


def test_a_second_bad_copy_gets_a_name_of_its_own(two_steps, tmp_path):
    for _ in range(2):
        shutil.copytree(two_steps / "20", tmp_path / "checkpoints" / "20")
        (tmp_path / "checkpoints" / "20" / "facts.json").unlink()
        assert newest(tmp_path / "checkpoints", tmp_path / "quarantine")[0] is None
    assert sorted(path.name for path in (tmp_path / "quarantine").iterdir()) == ["20", "20-2"]


def test_a_file_that_cannot_be_written_is_an_error_and_no_step(tmp_path, capfd):
    """The system refuses files of more than 100 kB, as a full disk would."""
    tree = {"w": jnp.asarray(np.random.default_rng(0).normal(size=100_000))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises((OSError, ValueError), match="too large"):
            write(tmp_path, 1, tree, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps(tmp_path) == []
    assert "Traceback" not in capfd.readouterr().err
    write(tmp_path, 1, tree, {})
    verify(tmp_path / "1")


def test_a_kill_before_the_rename_leaves_no_step(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1, tree_of(1), {})
    monkeypatch.undo()
    assert steps(tmp_path) == []
    write(tmp_path, 1, tree_of(1), {})
    assert same(load(tmp_path / "1", tree_of(2))[0], tree_of(1))
