"""20 Newsgroups, split by date. Of the header only the subject is read; quotations and signatures are kept."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from experiments.base.errors import UsageError
from experiments.base.options import added
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


@dataclasses.dataclass(frozen=True)
class NewsgroupsOptions(LongOptions):
    """Postings to newsgroups."""

    groups: Annotated[str, added("")] = ""
    """Read the postings of these groups only, named with commas: rec.sport.baseball,rec.sport.hockey; all if empty."""


class Newsgroups(TextTask):
    """The group that a posting was sent to."""

    Options: ClassVar[type] = NewsgroupsOptions

    @classmethod
    def examples(cls, options: NewsgroupsOptions) -> Iterator[Example]:
        """Yield the postings, or raise UsageError where a group that is asked for has none."""
        chosen = {name.strip() for name in options.groups.split(",")} - {""}
        seen = set()
        for example in read(locate(ARCHIVE, options.archives, options.cache)):
            if not chosen or example.target in chosen:
                seen.add(example.target)
                yield example
        if chosen - seen:
            raise UsageError(f"--data.groups: {ARCHIVE.name} has no group {', '.join(sorted(chosen - seen))}.")
