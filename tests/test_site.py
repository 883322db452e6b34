"""The site is built without a warning, no link inside of it is dead, and its pictures are what their programs draw."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


class Links(HTMLParser):
    """What a page links to or shows, and the names of its own places."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.places |= {named[key] for key in ("id", "name") if named.get(key)}
        self.targets += [named[key] for key in ("href", "src") if named.get(key) and tag != "use"]


def run(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = run("-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(folder))
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_no_link_is_dead(site):
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    checked = 0
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert path.is_file(), f"{page.relative_to(site)}: {target}"
            if parts.fragment and path in pages:
                assert unquote(parts.fragment) in pages[path].places, f"{page.relative_to(site)}: {target}"
            checked += 1
    assert checked > 1000


@pytest.mark.slow
def test_every_page_is_in_the_table_of_contents_of_four_groups(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    listed = set(re.findall(r'class="toctree-l1"><a class="reference internal" href="([^"#]+)\.html"', text))
    written = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")} - {"index"}
    assert listed == written
    assert len(set(re.findall(r'<p class="caption"[^>]*><span class="caption-text">([^<]+)<', text))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("program", "pictures"), [("exponent", ["exponent", "levels"]), ("choosing", ["choosing"])])
def test_pictures_are_what_their_programs_draw(program, pictures, tmp_path):
    """The curves are the same to the width of a line; the text around them belongs to the version of matplotlib."""
    drawn = run(str(DOCS / f"{program}.py"), str(tmp_path))
    assert drawn.returncode == 0, drawn.stderr
    for picture in pictures:
        ours, theirs = (curves(folder / f"{picture}.svg") for folder in (DOCS, tmp_path))
        assert len(ours) == len(theirs) > 4
        assert all(a == pytest.approx(b, abs=0.5) for a, b in zip(ours, theirs, strict=True))


def curves(picture: Path) -> list[list[float]]:
    """The numbers of every path of a drawing that is no letter."""
    paths = re.findall(r'<path d="([^"]*)" clip-path', picture.read_text(encoding="utf-8"))
    return [[float(number) for number in re.findall(r"-?\d+\.?\d*", path)] for path in paths]
