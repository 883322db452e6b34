"""News and reviews of Zhang et al. (2015), *Character-level Convolutional Networks for Text Classification*.

A tensorflow-datasets builder of ours prepares each archive once, as array_record files, which need no TensorFlow.
This module loads tensorflow-datasets, so tasks import it only when they read.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from experiments.base import files
from experiments.base.errors import DataError
from experiments.base.json_files import text_of
from experiments.data.archives import ends_in, lacks, streams
from experiments.data.fetch import Archive, aside, locate
from experiments.data.text import Example, held_out

_HOST = "https://s3.amazonaws.com/fast-ai-nlp"
ARCHIVES = {
    "ag_news": Archive("ag_news_csv.tgz", f"{_HOST}/ag_news_csv.tgz"),
    "yelp_polarity": Archive(
        "yelp_review_polarity_csv.tgz",
        f"{_HOST}/yelp_review_polarity_csv.tgz",
        "528f22e286cad085948acbc3bea7e58188416546b0e364d0ae4ca0ce666abe35",
    ),
    "yelp_full": Archive("yelp_review_full_csv.tgz", f"{_HOST}/yelp_review_full_csv.tgz"),
    "amazon": Archive("amazon_review_polarity_csv.tgz", f"{_HOST}/amazon_review_polarity_csv.tgz"),
}

_MOST = 2**33  # bytes of a table and of its archive; no more than a row of it is held
_SUMS = "sha256.txt"


class NumberedReviews(tfds.core.GeneratorBasedBuilder):
    """Tables with a class number first and the text in the columns after it."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ARCHIVES]  # noqa: RUF012

    def __init__(self, *, archive: Path, **options: Any):
        self.archive = archive
        super().__init__(file_format="array_record", **options)

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": tfds.features.Text()})
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        for number, (label, *columns) in enumerate(_rows(self.archive, f"{split}.csv")):
            # Upstream writes a line break as a backslash and an n.
            yield number, {"text": "\n".join(columns).replace("\\n", "\n"), "label": label}


def read(name: str, archives: Path | None, cache: Path) -> Iterator[Example]:
    """Yield the examples of a set, prepared in the cache when they are not yet, or no longer as they were prepared."""
    path = locate(ARCHIVES[name], archives, cache)
    tfds.disable_progress_bar()
    folder = cache.expanduser() / f"tfds-{files.digest(path)[:12]}"
    builder = _prepared(name, path, folder)
    with files.located(folder):
        for split in ("train", "test"):
            for row in builder.as_data_source(split):
                text, label = row["text"].decode(), row["label"].decode()
                yield Example(text, label, held_out(text) if split == "train" else split)


def _prepared(name: str, archive: Path, folder: Path) -> NumberedReviews:
    """Return the builder of a folder that holds what was prepared, every file with the SHA-256 that is noted there."""
    noted = folder / _SUMS
    if noted.exists():
        if _is_as_noted(folder, noted):
            return NumberedReviews(config=name, archive=archive, data_dir=folder)
        moved = aside(folder)
        print(f"{folder} is damaged: it is now {moved.name}, and {name} is prepared again.", file=sys.stderr)
    builder = NumberedReviews(config=name, archive=archive, data_dir=folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except FileExistsError:  # another process was faster
        builder = NumberedReviews(config=name, archive=archive, data_dir=folder)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="ascii") as file:
        file.write(_sums(folder))
    os.replace(file.name, noted)
    return builder


def _is_as_noted(folder: Path, noted: Path) -> bool:
    try:
        return text_of(noted) == _sums(folder)
    except DataError:
        return False


def _sums(folder: Path) -> str:
    """Return a line with SHA-256 and name for every file below a folder that is no note of ours."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() and path.parent != folder)
    return "".join(f"{files.digest(path)}  {path.relative_to(folder)}\n" for path in paths)


def _rows(path: Path, suffix: str) -> Iterator[list[str]]:
    """Yield the rows of a table in an archive, without holding the table."""
    where, width = f"{path.name}, {suffix}", 0
    for _, file in streams(path, ends_in(suffix), _MOST, _MOST):
        source = (files.text(line, f"{where}, line {number}") for number, line in files.lines(file, where))
        for number, row in files.rows(source, where):
            width = width or len(row)
            if len(row) != width or width < 2 or not row[0].isdecimal():
                expected = f"a class number and {max(width - 1, 1)} columns of text"
                raise DataError(f"{where}, row {number}: found {row}, expected {expected}.")
            yield row
    if not width:
        raise lacks(path, suffix)
