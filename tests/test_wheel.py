"""The wheel and the sdist, built from a copy and used outside the repository; what the project says of its version."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import jax
import pytest
import yaml
from cffconvert import Citation
from jsonschema.exceptions import ValidationError

from lnpool import __version__
from tests.test_readme import PAGES, ROOT, blocks

INFO = f"lnpool-{__version__}.dist-info"


def run(python: Path | str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python isolated: neither PYTHONPATH nor the current folder adds modules."""
    return subprocess.run([python, "-I", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel, made from the sdist, which is made from a copy of what the repository tracks."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    done = run(sys.executable, "-m", "build", "--no-isolation", cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = copy.glob("dist/*.whl"), copy.glob("dist/*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_library_and_nothing_else(built):
    assert built[0].name == f"lnpool-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built[0]) as wheel:
        found = set(wheel.namelist())
        metadata = wheel.read(f"{INFO}/METADATA").decode()
    library = {name for name in tracked() if name.startswith("lnpool/")}
    assert "lnpool/py.typed" in library
    about = {f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt")}
    assert found == library | about
    assert f"\nVersion: {__version__}\n" in metadata
    assert re.findall(r"^License-File: (.*)$", metadata, re.MULTILINE) == ["LICENSE"]
    needed = re.findall(r"^Requires-Dist: ([a-z]+)[^;\n]*$", metadata, re.MULTILINE)
    assert needed == ["jax", "jaxtyping"]


def test_the_sdist_holds_the_repository(built):
    with tarfile.open(built[1]) as sdist:
        found = {name.partition("/")[2] for name in sdist.getnames()}
    hidden = {name for name in tracked() if name.startswith(".")}
    assert {*tracked()} - hidden <= found
    assert "experiments/data/LICENSE.wordnet" in found


def roots(snippet: str) -> set[str]:
    """The packages that a block imports, lnpool.nn apart from lnpool."""
    nodes = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or alias.name for node in nodes for alias in node.names}
    return {name if name == "lnpool.nn" else name.partition(".")[0] for name in names}


SNIPPETS = [block for page in PAGES if page.name == "README.md" for block in blocks(page, "python")]
FUNCTION = {"jax", "lnpool"}
MODULE = FUNCTION | {"flax", "lnpool.nn"}

SECONDS = """\
import time
import jax
before = time.perf_counter()
import lnpool
print(time.perf_counter() - before)
"""
LOADED = 'import sys, {}; print(*{{name.partition(".")[0] for name in sys.modules}})'
WRONG = "import lnpool\nlnpool.pool(1.0, sharpen='no', p=2.0)\nreveal_type(lnpool.implementations())\n"
LIBRARY_ALONE = "[mypy]\n[mypy-jax.*,jaxtyping.*,numpy.*]\nfollow_imports = skip\n"


@pytest.mark.slow
@pytest.mark.timeout(3600)  # most of it is pip, twice
def test_an_empty_environment_with_the_wheel(built, tmp_path, capsys):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"

    def install(*requirements: str) -> None:
        done = run(python, "-m", "pip", "install", "-q", *requirements, f"jax=={jax.__version__}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    def runs(snippets: list[str]) -> None:
        assert snippets
        for snippet in snippets:
            done = run(python, "-c", snippet, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines() == re.findall(r"# -> (.*)$", snippet, flags=re.MULTILINE)

    install(str(built[0]))
    runs([block for block in SNIPPETS if roots(block) <= FUNCTION])
    assert "experiments" in run(python, "-c", "import experiments", cwd=tmp_path).stderr
    loaded = {
        name: {*run(python, "-c", LOADED.format(name), cwd=tmp_path).stdout.split()} for name in ("jax", "lnpool")
    }
    assert loaded["lnpool"] - loaded["jax"] - sys.stdlib_module_names == {"jaxtyping", "lnpool"}
    seconds = [float(run(python, "-c", SECONDS, cwd=tmp_path).stdout) for _ in range(5)]
    with capsys.disabled():
        print(f"\nimport lnpool after import jax: {statistics.median(seconds):.2f} s, median of {len(seconds)}")
    done = run(python, "-c", "import lnpool.nn", cwd=tmp_path)
    assert 'lnpool.nn needs flax: pip install "lnpool[nn]"' in done.stderr
    install(f"{built[0]}[nn]")
    runs([block for block in SNIPPETS if "lnpool.nn" in roots(block) and roots(block) <= MODULE])
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "mypy.ini").write_text(LIBRARY_ALONE)
    checked = run(sys.executable, "-m", "mypy", "--python-executable", str(python), "wrong.py", cwd=tmp_path).stdout
    assert 'wrong.py:2: error: Argument "sharpen" to "pool" has incompatible type "str"; expected "bool"' in checked
    assert 'Revealed type is "dict[Literal[' in checked


def test_the_changelog_has_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__
    assert len(set(headings)) == len(headings)


def test_the_citation_is_of_this_version_and_valid():
    """cffconvert has the schema of the Citation File Format, version 1.2.0."""
    text = (ROOT / "CITATION.cff").read_text()
    about = yaml.safe_load(text)
    assert about["cff-version"] == "1.2.0"
    assert about["version"] == __version__
    (paper,) = about["references"]
    assert paper["doi"] == "10.18653/v1/2020.acl-main.267"
    Citation(text).validate()
    with pytest.raises(ValidationError):
        Citation(text.replace("type: software", "type: pool")).validate()
