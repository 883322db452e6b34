"""Texts with triples: CoNLL04 (Roth and Yih 2004), and files in the JSON form in which WebNLG and NYT are passed on.

CoNLL04, in the form and the split of Bekoulis et al. (2018), is a word a line:

    17 TAB Isle TAB I-Loc TAB ['Located_In'] TAB [22]

its number, the word, the tag of its entity, relations in which the entity that ends here is the subject, and the last
word of the object of each; a word without a relation has ['N'] and its own number.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import tyro

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import NO_JSON
from experiments.base.options import NOT_DECISIVE, Interval
from experiments.data.archives import member
from experiments.data.fetch import Archive, locate
from experiments.data.text import Example, held_out, split_by_hash
from experiments.data.triples import Facts, Mention, TripleOptions, TripleTask, as_facts, mention_of, split_words

ARCHIVE = Archive(
    "CoNLL04.tar.gz",
    "https://github.com/bekou/multihead_joint_entity_relation_extraction/archive/refs/heads/master.tar.gz",
)
FILES = {"train": "CoNLL04/train.txt", "validation": "CoNLL04/dev.txt", "test": "CoNLL04/test.txt"}
NEW, NOTHING = "#doc", "N"
_LINE = re.compile(r"(\d{1,9})\t(\S+)\t(O|[BI]-\S+)\t\[('[^'\t]+'(?:, *'[^'\t]+')*)\]\t\[(\d{1,9}(?:, *\d{1,9})*)\]")
_EXPECTED = "a number, a word, its tag, relations and heads, as 0, Paris, B-Loc, ['N'], [0] with tabs between"


class Word(NamedTuple):
    """A line of a file."""

    word: str
    tag: str
    relations: tuple[tuple[str, int], ...]


def documents(content: str, where: str) -> Iterator[list[Word]]:
    """Yield the sentences of a file, which begin at lines #doc.

    Raises:
        DataError: one line with the line and what was expected.
    """
    words: list[Word] = []
    for number, line in enumerate(content.splitlines(), start=1):
        found = _LINE.fullmatch(line.rstrip())
        if line.startswith(NEW) or not line.strip():
            if words:
                yield words
            words = []
        elif not found or int(found[1]) != len(words):
            raise DataError(f"{where}, line {number}: found {line!r}, expected {_EXPECTED}.")
        else:
            names, heads = re.findall(r"'([^']+)'", found[4]), [int(head) for head in found[5].split(",")]
            if len(names) != len(heads):
                raise DataError(f"{where}, line {number}: found {len(names)} relations and {len(heads)} heads.")
            relations = tuple(pair for pair in zip(names, heads, strict=True) if pair[0] != NOTHING)
            words.append(Word(found[2], found[3], relations))
    if words:
        yield words


def facts_of(words: list[Word], how: str) -> Facts:
    """Return the entities and relations of a sentence.

    An entity begins at a tag B, and at a tag I that goes on with no entity of its type. A relation whose subject or
    object is no last word of an entity stands nowhere: it counts and cannot be found.
    """
    pieces = [split_words(word.word, how) for word in words]
    begins = [sum(map(len, pieces[:at])) for at in range(len(pieces) + 1)]
    ends: dict[int, Mention] = {}
    first = 0
    for at, word in enumerate(words):
        before = words[at - 1].tag if at else "O"
        after = words[at + 1].tag if at + 1 < len(words) else "O"
        if word.tag.startswith("B") or before[1:] != word.tag[1:]:
            first = at
        if word.tag != "O" and after != f"I{word.tag[1:]}":
            text = " ".join(piece for some in pieces[first : at + 1] for piece in some)
            ends[at] = Mention(text, begins[first], begins[at + 1] - 1, word.tag[2:])

    def mention(at: int) -> Mention:
        return ends[at] if at in ends else Mention(" ".join(pieces[at] if at < len(pieces) else ()))

    triples = ((mention(at), name, mention(head)) for at, word in enumerate(words) for name, head in word.relations)
    return as_facts(triples, ends.values())


def read_conll(path: Path, how: str) -> Iterator[Example]:
    """Yield the sentences of the three files of the archive, their words with a space between two."""
    for split, name in FILES.items():
        where = f"{path.name}, {name}"
        for words in documents(files.text(member(path, name), where), where):
            yield Example(" ".join(word.word for word in words), facts_of(words, how), split)


@dataclasses.dataclass(frozen=True)
class ConllOptions(TripleOptions):
    """Sentences of news with entities of four types and relations of five."""

    words: Literal["spaces", "marks"] = "spaces"
    """What a word is: all between two spaces, for texts that are split already; or letters and digits, and marks."""


class Conll04(TripleTask):
    """Who lives, works or kills whom, and what lies or is based where."""

    Options: ClassVar[type] = ConllOptions

    @classmethod
    def examples(cls, options: ConllOptions) -> Iterable[Example]:
        """Return the sentences."""
        return read_conll(locate(ARCHIVE, options.archives, options.cache), options.words)


def read_json(path: Path, how: str, megabytes: int = 1024) -> Iterator[tuple[str, Facts]]:
    """Yield texts and triples of a JSON file: an array of objects, or an object a line.

    Each is `{"text": "...", "triple_list": [["subject", "predicate", "object"], ...]}`. Subject and object are looked
    for in the words of the text, where they first stand. One that does not stand there counts and cannot be found.

    Raises:
        DataError: one line with the row and what was expected.
    """
    content = files.content(path, megabytes * 2**20, "--data.max-megabytes allows more, which memory must hold")
    text = files.text(content, path.name).removeprefix("\ufeff")
    rows: Iterable[Any] = filter(str.strip, text.splitlines())
    if text.lstrip().startswith("["):
        rows = _parsed(text, path.name)
    for number, row in enumerate(rows, start=1):
        where = f"{path.name}, row {number}"
        yield _row(_parsed(row, where) if isinstance(row, str) else row, where, how)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except NO_JSON as error:
        raise DataError(f"{where} is not JSON: {error}.") from None


def _row(row: Any, where: str, how: str) -> tuple[str, Facts]:
    """Return the text and the triples of a row."""
    match row:
        case {"text": str(text), "triple_list": list(triples)} if all(map(_is_triple, triples)):
            words = split_words(text, how)
            parts = ([split_words(part, how) for part in (s, o)] + [p] for s, p, o in triples)
            return text, as_facts((mention_of(words, s), p, mention_of(words, o)) for s, o, p in parts)
    expected = 'an object with "text" and "triple_list", a list of [subject, predicate, object]'
    raise DataError(f"{where}: found {str(row)[:60]!r}, expected {expected}.")


def _is_triple(triple: Any) -> bool:
    """Tell whether a triple has three texts, and subject and object words."""
    some = isinstance(triple, list) and len(triple) == 3 and all(isinstance(part, str) for part in triple)
    return some and all(map(str.strip, triple))


@dataclasses.dataclass(frozen=True)
class TripleFileOptions(TripleOptions):
    """A JSON file of texts and triples, and others for validation and test."""

    path: Annotated[Path | None, tyro.conf.arg(aliases=["--path"])] = None
    """The file; an array of objects, or an object a line, with "text" and "triple_list"."""
    validation: Path | None = None
    """File of the validation split; without one, a tenth of the training split by the hash of each text."""
    test: Path | None = None
    """File of the test split; without one, the hash of each text decides (80, 10, 10 %)."""
    max_megabytes: Annotated[int, Interval("[1, 1048576]"), NOT_DECISIVE] = 1024
    """Megabytes of the largest file that is read; it is held in memory, about four times."""


class TripleFile(TripleTask):
    """What the texts of the user's file say."""

    Options: ClassVar[type] = TripleFileOptions

    @classmethod
    def examples(cls, options: TripleFileOptions) -> Iterator[Example]:
        """Yield the rows of the files."""
        if options.path is None:
            raise DataError("no file is given: --task triple_file --path triples.json")
        for text, facts in read_json(options.path, options.words, options.max_megabytes):
            split = "train"
            if options.test is None:
                split = split_by_hash(text)
            elif options.validation is None:
                split = held_out(text)
            yield Example(text, facts, split)
        for name, path in (("validation", options.validation), ("test", options.test)):
            if path is not None:
                yield from (Example(*row, name) for row in read_json(path, options.words, options.max_megabytes))
