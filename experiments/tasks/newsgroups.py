"""20 Newsgroups, split by date. Of the header only the subject is read; quotations and signatures are kept."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from experiments.data.archives import members
from experiments.data.fetch import Archive, locate
from experiments.data.text import Example, held_out
from experiments.data.text_task import LongOptions, TextTask

ARCHIVE = Archive("20news-bydate.tar.gz", "http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz")
_POSTING = re.compile(r"20news-bydate-(train|test)/([^/]+)/\d+$")


def read(path: Path) -> Iterator[Example]:
    """Yield every posting; the class is its group."""
    for name, content in members(path, _POSTING.search):
        found = _POSTING.search(name)
        if found:
            split, group = found.groups()
            text = body(content.decode("latin-1"))
            yield Example(text, group, held_out(text) if split == "train" else split)


def body(posting: str) -> str:
    r"""Return the subject and what follows the header.

    >>> body("From: a@b\nSubject: Re: keys\nLines: 1\n\nWho has them?")
    'Re: keys\nWho has them?'
    """
    header, _, text = posting.partition("\n\n")
    subject = next((line[8:].strip() for line in header.splitlines() if line.lower().startswith("subject:")), "")
    return f"{subject}\n{text}"


class Newsgroups(TextTask):
    """The group that a posting was sent to."""

    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the postings."""
        return read(locate(ARCHIVE, options.archives, options.cache))
