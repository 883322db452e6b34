"""Reuters-21578: newswire of 1987 in SGML, each article with any number of topics, and a headline (Lewis 1997).

The split of topics is "ModApte", the one that published results share: articles whose topics an editor has checked,
9,603 for training and 3,299 for the test. Some of them have no topic. That of headlines is "ModLewis", which takes the
articles too whose topics nobody has checked.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from experiments.base.errors import DataError
from experiments.data.archives import lacks, members
from experiments.data.fetch import Archive, locate
from experiments.data.targets import Tags
from experiments.data.text import Example, held_out, split_words
from experiments.data.text_task import LongOptions, SourceOptions, TextTask
from experiments.data.titles import TitleOptions, TitleTask

_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/reuters21578-mld"
ARCHIVE = Archive("reuters21578.tar.gz", f"{_URL}/reuters21578.tar.gz")
REPACKED = Archive("reuters21578.tar.xz", ARCHIVE.url)
"""The same files, as some keep them; only a folder of archives can hold it."""
_MEMBER = re.compile(r"(^|/)reut2-\d{3}\.sgm$")
_ARTICLE = re.compile(r"<REUTERS\b([^>]*)>(.*?)</REUTERS>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_TAG = re.compile(r"<[^<>]*>")
_SPLITS = {"TRAIN": "train", "TEST": "test"}
SHORTEST = 15
"""Words of a body that has a headline to be written; shorter ones are notices without sentences."""


class Article(NamedTuple):
    """An article that belongs to a split."""

    body: str
    """Its markup."""
    checked: bool
    """Whether an editor has checked its topics."""
    split: str


def read(path: Path) -> Iterator[Example]:
    """Yield the articles of the split with their topics; a tenth of the training part is for validation."""
    for body, checked, split in articles(path):
        if checked:
            text = _text(body)
            topics = tuple(map(_plain, re.findall(r"<D>(.*?)</D>", _element(body, "TOPICS"), re.DOTALL)))
            yield Example(text, topics, held_out(text) if split == "train" else split)


def read_titles(path: Path) -> Iterator[Example]:
    """Yield the bodies of `SHORTEST` words and more with their headlines, a tenth of the training part held out."""
    for body, _, split in articles(path):
        title, text = (_plain(_element(body, name)) for name in ("TITLE", "BODY"))
        if title and len(split_words(text)) >= SHORTEST:
            yield Example(text, title, held_out(text) if split == "train" else split)


def articles(path: Path) -> Iterator[Article]:
    """Yield the articles of the archive that belong to the training or the test part."""
    found = False
    for name, content in members(path, _MEMBER.search):
        found = True
        yield from _articles(content.decode("latin-1"), f"{path.name}, member {name}")
    if not found:
        raise lacks(path, "reut2-000.sgm")


def _articles(content: str, where: str) -> Iterator[Article]:
    """Yield the articles of one file that belong to a split."""
    articles = _ARTICLE.findall(content)
    if not articles:
        raise DataError(f"{where}: found no article, expected elements <REUTERS ...>...</REUTERS>.")
    for start, body in articles:
        attributes = dict(_ATTRIBUTE.findall(start))
        if not {"TOPICS", "LEWISSPLIT"} <= attributes.keys():
            raise DataError(f"{where}: an article has the attributes {start.strip()!r}, expected TOPICS, LEWISSPLIT.")
        split = _SPLITS.get(attributes["LEWISSPLIT"])
        if attributes["TOPICS"] in ("YES", "NO") and split is not None:
            yield Article(body, attributes["TOPICS"] == "YES", split)


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


def _source(options: SourceOptions) -> Path:
    """Return the archive that is at hand, or is fetched."""
    folder = options.archives
    source = REPACKED if folder and (folder / REPACKED.name).is_file() else ARCHIVE
    return locate(source, folder, options.cache)


class Reuters(TextTask):
    """The topics of a piece of news: the ModApte split of Reuters-21578, none to 16 topics an article."""

    Options: ClassVar[type] = LongOptions
    Targets: ClassVar[type] = Tags
    objective: ClassVar[str] = "multilabel"

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the news."""
        return read(_source(options))


class ReutersTitles(TitleTask):
    """The headline of a piece of news: the ModLewis split of Reuters-21578."""

    @classmethod
    def examples(cls, options: TitleOptions) -> Iterable[Example]:
        """Return the news."""
        return read_titles(_source(options))
