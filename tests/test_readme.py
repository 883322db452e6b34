"""Every code block of the README and of the docs runs and prints what the page says; commands and links exist."""

import contextlib
import fnmatch
import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


SNIPPETS = [
    pytest.param(block, id=f"{name_of(page)}-{i}", marks=[pytest.mark.sampled(12)] * (page != README))
    for page in PAGES
    for i, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_block(snippet: str, tmp_path: Path):
    """A block runs in a fresh interpreter; its comments ``# -> text`` are, in order, the lines that it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_environment(),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    expected = re.findall(r"# -> (.*)$", snippet, flags=re.MULTILINE)
    assert expected
    assert result.stdout.splitlines() == expected


def _environment() -> dict[str, str]:
    """That of a reader, whose programs are optimised."""
    ours = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "False"}
    return {**os.environ, **ours}


LOOP = r"\bfor (\w+) in ([^\s;]+)"
"""The name and the first value of the variable of a loop."""


def commands(page: Path) -> list[list[str]]:
    """The words after every ``python -m`` in the shell blocks of a page.

    A variable of a loop has the first of its values, and others that are values are 0.
    """
    script = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    for name, value in re.findall(LOOP, script):
        script = re.sub(rf"\${name}\b", value, script)
    script = re.sub(r"(--\S+ )(\$\w+|SEED|FOLD)\b", r"\g<1>0", script)
    script = re.sub(r"\$\w+", "", script)
    found = []
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        for is_end, part in itertools.groupby(words, key=lambda word: set(word) <= set(";&|<>()")):
            text = list(part)
            if not is_end and "python" in text and text[(start := text.index("python")) + 1] == "-m":
                found.append(text[start + 2 :])
    return found


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name == "experiments.md")) for page in PAGES],
    ids=name_of,
)
def test_commands_exist(page: Path):
    """A module that a page runs is there, and a command of `experiments` knows the options that it is given."""
    from experiments.base.command_line import parse
    from experiments.base.errors import DataError
    from experiments.run.config import parse_args

    for module, *arguments in dict.fromkeys(map(tuple, commands(page))):
        assert importlib.util.find_spec(module), module
        with contextlib.suppress(DataError):  # a file of the reader's is not there
            if module == "experiments.train" and "--resume" not in arguments:
                parse_args(list(arguments))
            elif module in ("experiments.analyse", "experiments.baseline"):
                importlib.import_module(module).parse_args(list(arguments))
            elif module.startswith("experiments.") and module != "experiments.train":
                parse(importlib.import_module(module).Options, list(arguments), program=module)


def test_loops_over_runs_find_cells_of_the_grid_of_their_page():
    from experiments.sweeping import grid

    found = 0
    for page in PAGES:
        sweeps = [arguments for module, *arguments in commands(page) if module == "experiments.sweep"]
        grids = {words[words.index("--out") + 1]: ROOT / words[0] for words in sweeps}
        for name, value in re.findall(LOOP, "\n".join(blocks(page, "bash"))):
            folder, _, pattern = value.rpartition("/")
            if name == "run" and folder in grids:
                cells = map(grid.name, grid.cells(grid.read(grids[folder])))
                assert fnmatch.filter(cells, pattern), f"{name_of(page)}: {value}"
                found += 1
    assert found >= 5


def test_readme_has_the_two_commands():
    text = README.read_text()
    for label, last in (("main command", "python -m experiments.train"), ("test command", "python -m pytest")):
        found = re.search(rf"<!-- {label} -->\n```bash\n(.*?)\n```", text)
        assert found, label
        install, run = found.group(1).split(" && ")
        assert install.startswith("python -m pip install -e")
        assert run.startswith(last)


def test_main_command_exists():
    """The command of the README is the one the harness answers to; tests/harness trains with it."""
    result = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "--pooler" in result.stdout


def test_links_point_at_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{name_of(page)}: {target}"
