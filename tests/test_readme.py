"""Every code block of the README and of the docs runs, and prints what the page says it prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


SNIPPETS = [
    pytest.param(block, id=f"{page.name}-{i}") for page in PAGES for i, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_block(snippet: str, tmp_path: Path):
    """A block runs in a fresh interpreter; its comments ``# -> text`` are, in order, the lines that it prints."""
    result = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, env=_environment(), check=False
    )
    assert result.returncode == 0, result.stderr
    expected = re.findall(r"# -> (.*)$", snippet, flags=re.MULTILINE)
    assert expected
    assert result.stdout.splitlines() == expected


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def test_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
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
        for target in re.findall(r"\]\(([^)#:]+?)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
