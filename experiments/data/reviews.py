"""News and reviews of Zhang et al. (2015), *Character-level Convolutional Networks for Text Classification*.

A tensorflow-datasets builder of ours prepares each archive once, as array_record files, which need no TensorFlow.
This module loads tensorflow-datasets, so tasks import it only when they read.
"""

import contextlib
import csv
import hashlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from experiments.base.errors import DataError
from experiments.data.fetch import Archive, locate
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
    """Yield the examples of a set, prepared in the cache when they are not yet."""
    path = locate(ARCHIVES[name], archives, cache)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tfds.disable_progress_bar()
    builder = NumberedReviews(config=name, archive=path, data_dir=cache.expanduser() / f"tfds-{digest[:12]}")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except FileExistsError:  # another process was faster
        builder = NumberedReviews(config=name, archive=path, data_dir=builder.data_dir)
    for split in ("train", "test"):
        for row in builder.as_data_source(split):
            text, label = row["text"].decode(), row["label"].decode()
            yield Example(text, label, held_out(text) if split == "train" else split)


def _rows(path: Path, suffix: str) -> Iterator[list[str]]:
    """Yield the rows of a table in an archive, without holding the table."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(f"/{suffix}") else None
                if file is not None:
                    yield from csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
                    return
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(f"{path.name} cannot be read as an archive: {error}") from None
    raise DataError(f"{path.name} has no member {suffix}: is it the archive that upstream serves?")
