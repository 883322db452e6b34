"""Large sets through tensorflow-datasets: kinds of news (ag_news), opinions (yelp_polarity, yelp_full, amazon)."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import ClassVar

from experiments.base.errors import UsageError
from experiments.data.text import Example
from experiments.data.text_task import LongOptions, TextTask

_NEEDED = ("tensorflow_datasets", "importlib_resources", "array_record")


class _Reviews(TextTask):
    name: str
    Options: ClassVar[type] = LongOptions

    @classmethod
    def examples(cls, options: LongOptions) -> Iterable[Example]:
        """Return the texts of the set."""
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            raise UsageError(
                f'the task {cls.name} needs {", ".join(missing)}: python -m pip install -e ".[experiments]"'
            )
        from experiments.data import reviews  # loads tensorflow-datasets, which no other task needs

        return reviews.read(cls.name, options.archives, options.cache)


def review_task(name: str) -> type[TextTask]:
    """Return the task of one set."""
    return type(name, (_Reviews,), {"name": name})
