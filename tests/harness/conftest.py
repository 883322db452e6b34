"""A small task that learns in seconds, entered as a task file would be: one row in the table."""

from typing import ClassVar

import jax
import jaxtyping
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

# Before these modules are loaded: every shape they promise is checked at every call of a test.
SHAPED = ("encoders", "layers", "objectives", "poolers")
install_import_hook([f"experiments.{name}" for name in SHAPED], "beartype.beartype")

from experiments.base import devices  # noqa: E402
from experiments.data.text import Example  # noqa: E402
from experiments.data.text_task import TextOptions, TextTask  # noqa: E402
from experiments.run import program  # noqa: E402
from experiments.sweeping.cells import share_programs  # noqa: E402
from experiments.tasks import TASKS  # noqa: E402

CLUES = {"animal": ["cat", "dog", "crow"], "plant": ["oak", "fern", "moss"], "tool": ["saw", "file", "vice"]}
FILLER = ["the", "of", "a", "small", "large", "found", "used", "in"]


def toy_examples() -> list[Example]:
    """Texts of 1 to 12 words, one of which tells the class."""
    random = np.random.default_rng(0)
    examples = []
    for index in range(400):
        label = list(CLUES)[index % 3]
        words = [str(word) for word in random.choice(FILLER, random.integers(0, 12))]
        words.insert(random.integers(0, len(words) + 1), str(random.choice(CLUES[label])))
        split = {0: "validation", 1: "test"}.get(index // 3 % 5, "train")
        examples.append(Example(" ".join(words), label, split))
    return examples


class Toy(TextTask):
    """Which of three kinds a text names."""

    Options: ClassVar[type] = TextOptions

    @classmethod
    def examples(cls, options: TextOptions) -> list[Example]:
        return toy_examples()


OPTIONS = """
--task toy --encoder bag --encode.features 16 --data.batch-size 32 --data.max-len 12 --data.buckets 2
--epochs 4 --evaluations 1 --optim.learning-rate 0.03
"""
TINY = OPTIONS.split()


@pytest.fixture(autouse=True, scope="session")
def one_device():
    """All devices are one, unless a test says how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "available", lambda: 1)
        yield


@pytest.fixture
def one_line(capsys):
    """A function that runs a command, which ends with an exit code and one line on stderr that holds a message."""

    def check(main, arguments: list[str], code: int, message: str) -> None:
        capsys.readouterr()
        assert main(arguments) == code
        line = capsys.readouterr().err
        assert line.startswith(f"{main.__module__}: ")
        assert line.count("\n") == 1
        assert message in line

    return check


@pytest.fixture(scope="session")
def programs_folder(tmp_path_factory, worker_id):
    """One folder for the workers of pytest-xdist, each of which has a folder of its own in that of the session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "programs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True, scope="module")
def programs(programs_folder):
    """Tests and the processes that they start share compiled programs, as the cells of a sweep do."""
    cache = {"jax_compilation_cache_dir": str(programs_folder), "jax_persistent_cache_min_compile_time_secs": 0}
    before = {name: getattr(jax.config, name) for name in cache}
    compilation_cache.reset_cache()
    share_programs(programs_folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache.items():
            patch.setenv(name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def toy_task(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", Toy)


@pytest.fixture(autouse=True, scope="session")
def rows_without_a_number():
    """jaxtyping cannot compare an axis `*#B` of symbolic size: programs of any number of rows are made unchecked."""
    made = program.exported

    def unchecked(form):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return made(form)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "exported", unchecked)
        yield
