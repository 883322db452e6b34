"""Titles without a network: the first words of the text, the title of the nearest text, and the words of both."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.base.contracts import Task
from experiments.base.errors import UsageError
from experiments.data import rouge
from experiments.data.text import split_words
from experiments.data.text_task import SPLITS
from experiments.data.titles import TitleTask

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
except ImportError:
    TfidfVectorizer = None

LENGTHS = (6, 8, 10, 12, 15)
"""Numbers of first words."""
_ROWS = 512


def title(task: type[Task], options: Any) -> dict[str, Any]:
    """Score the first n words of every text, n chosen on validation; two other rows stand beside.

    The nearest text of the training split is that of the largest cosine of TF-IDF vectors of words. The oracle is the
    words of the right title that stand in the text, in the order of the title: the most that copying words can say.

    Raises:
        UsageError: scikit-learn or rouge-score is missing, or the task has no titles.
    """
    if not issubclass(task, TitleTask):
        raise UsageError("the objective title needs title, which the task has not.")
    if TfidfVectorizer is None:
        raise UsageError('the baseline of titles needs scikit-learn: python -m pip install -e ".[baselines]"')
    data = task(options)
    texts: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    titles: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for example in task.examples(options):
        texts[example.split].append(split_words(example.text))
        titles[example.split].append(split_words(example.target))
    nearest = _nearest(texts, titles)

    def first(split: str, count: int) -> dict[str, float]:
        return rouge.scores((right, text[:count]) for right, text in zip(titles[split], texts[split], strict=True))

    def near(split: str) -> dict[str, float]:
        return rouge.scores(zip(titles[split], nearest[split], strict=True))

    def oracle(split: str) -> dict[str, float]:
        pairs = zip(titles[split], map(set, texts[split]), strict=True)
        return rouge.scores((right, [word for word in right if word in text]) for right, text in pairs)

    def both(scores: Callable[[str], dict[str, float]]) -> dict[str, dict[str, float]]:
        return {split: scores(split) for split in ("test", "validation")}

    count = max(LENGTHS, key=lambda count: first("validation", count)["rouge_l"])
    return {
        "encoder": "words",
        "pooler": f"the first {count}",
        **both(lambda split: first(split, count)),
        "parameters": 1,
        "data": data.describe(),
        "beside": {
            "the title of the nearest text": both(near),
            "the words of the title that the text has": both(oracle),
        },
    }


def _nearest(texts: dict[str, list[list[str]]], titles: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    """Return for every text of validation and test the title of the nearest text of the training split."""
    vectorizer = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True).fit(texts["train"])
    known = vectorizer.transform(texts["train"]).T.tocsc()
    found = {}
    for split in ("test", "validation"):
        vectors = vectorizer.transform(texts[split])
        parts = (vectors[start : start + _ROWS] @ known for start in range(0, len(texts[split]), _ROWS))
        places = np.concatenate([np.asarray(part.argmax(axis=1)).ravel() for part in parts])
        found[split] = [titles["train"][place] for place in places]
    return found
