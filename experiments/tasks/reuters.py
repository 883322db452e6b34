"""Reuters-21578: newswire of 1987 in SGML, each article with any number of topics (Lewis 1997).

The split is "ModApte", the one that published results share: articles whose topics an editor has checked, 9,603 for
training and 3,299 for the test. Some of them have no topic.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from experiments.base.errors import DataError
from experiments.data.archives import lacks, members
from experiments.data.fetch import Archive, locate
from experiments.data.targets import Tags
from experiments.data.text import Example, held_out
from experiments.data.text_task import LongOptions, TextTask

_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/reuters21578-mld"
ARCHIVE = Archive("reuters21578.tar.gz", f"{_URL}/reuters21578.tar.gz")
REPACKED = Archive("reuters21578.tar.xz", ARCHIVE.url)
"""The same files, as some keep them; only a folder of archives can hold it."""
_MEMBER = re.compile(r"(^|/)reut2-\d{3}\.sgm$")
_ARTICLE = re.compile(r"<REUTERS\b([^>]*)>(.*?)</REUTERS>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_TAG = re.compile(r"<[^<>]*>")
_SPLITS = {"TRAIN": "train", "TEST": "test"}


def read(path: Path) -> Iterator[Example]:
    """Yield the articles of the split with their topics; a tenth of the training part is for validation."""
    found = False
    for name, content in members(path, _MEMBER.search):
        found = True
        yield from _articles(content.decode("latin-1"), f"{path.name}, member {name}")
    if not found:
        raise lacks(path, "reut2-000.sgm")


def _articles(content: str, where: str) -> Iterator[Example]:
    """Yield the articles of one file that belong to the split."""
    articles = _ARTICLE.findall(content)
    if not articles:
        raise DataError(f"{where}: found no article, expected elements <REUTERS ...>...</REUTERS>.")
    for start, body in articles:
        attributes = dict(_ATTRIBUTE.findall(start))
        if not {"TOPICS", "LEWISSPLIT"} <= attributes.keys():
            raise DataError(f"{where}: an article has the attributes {start.strip()!r}, expected TOPICS, LEWISSPLIT.")
        split = _SPLITS.get(attributes["LEWISSPLIT"])
        if attributes["TOPICS"] == "YES" and split is not None:
            text = _text(body)
            topics = tuple(map(_plain, re.findall(r"<D>(.*?)</D>", _element(body, "TOPICS"), re.DOTALL)))
            yield Example(text, topics, held_out(text) if split == "train" else split)


def _text(article: str) -> str:
    """Return title and body; all of the text where it is not divided so."""
    parts = [_element(article, "TITLE"), _element(article, "BODY")]
    return "\n".join(map(_plain, filter(None, parts))) if parts[1] else _plain(_element(article, "TEXT"))


def _element(text: str, name: str) -> str:
    """Return what stands in the first element of a name; nothing where there is none."""
    found = re.search(rf"<{name}\b[^>]*>(.*?)</{name}>", text, re.DOTALL)
    return found[1] if found else ""


def _plain(markup: str) -> str:
    """Return the text of markup: no tags, and characters in the place of references to them."""
    return html.unescape(_TAG.sub(" ", markup)).strip()


class Reuters(TextTask):
    """The topics of a piece of news: the ModApte split of Reuters-21578, none to 16 topics an article."""

    Options: ClassVar[type] = LongOptions
    Targets: ClassVar[type] = Tags
    objective: ClassVar[str] = "multilabel"

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the news."""
        folder = options.archives
        source = REPACKED if folder and (folder / REPACKED.name).is_file() else ARCHIVE
        return read(locate(source, folder, options.cache))
