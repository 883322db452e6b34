"""What TF-IDF vectors come to: support vector machines for classes and tags, ridge for numbers, cosine for groups.

The penalty is chosen on the validation split; the test split is read once, at the end.
"""

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from experiments.base.contracts import Task
from experiments.base.errors import DataError, UsageError
from experiments.data.text import split_words
from experiments.data.text_task import SPLITS, check_texts
from experiments.objectives import OBJECTIVES
from experiments.objectives.multilabel import TagCounts
from experiments.objectives.regress import Ranked
from experiments.objectives.similarity import ranks, shares

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC
except ImportError:
    TfidfVectorizer = None

PENALTIES = (0.2, 0.5, 1.0, 2.0)
"""Inverse strengths of the penalty of a support vector machine."""
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the penalty of ridge regression."""


class _Split(NamedTuple):
    """One split: vectors of the texts, and their targets."""

    vectors: Any
    targets: Any


def classify(task: type[Task], options: Any) -> dict[str, Any]:
    """Score a linear support vector machine by accuracy and macro-F1."""
    splits, _ = _splits(task, options, "classify")
    _check_classes(splits["train"].targets)

    def scores(truth: Sequence[str], predicted: Any) -> dict[str, float]:
        macro = float(f1_score(truth, predicted, average="macro"))
        return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": macro}

    def parameters(model: Any) -> int:
        return int(model.coef_.size + model.intercept_.size)

    return _chosen("classify", splits, PENALTIES, lambda C: LinearSVC(C=C), scores, parameters)


def multilabel(task: type[Task], options: Any) -> dict[str, Any]:
    """Score one linear support vector machine a tag by micro-F1 and macro-F1."""
    splits, kind = _splits(task, options, "multilabel")
    splits = {name: split._replace(targets=kind.encode(split.targets)) for name, split in splits.items()}

    def scores(truth: Any, predicted: Any) -> dict[str, float]:
        given = np.asarray(predicted, np.float64).reshape(truth.shape)
        return TagCounts(*((each).sum(axis=0) for each in (given * truth, truth, given))).compute()

    def parameters(model: Any) -> int:
        parts = [part for part in model.estimators_ if hasattr(part, "coef_")]  # a tag that all texts have needs none
        return int(sum(part.coef_.size + part.intercept_.size for part in parts))

    return _chosen("multilabel", splits, PENALTIES, lambda C: OneVsRestClassifier(LinearSVC(C=C)), scores, parameters)


def regress(task: type[Task], options: Any) -> dict[str, Any]:
    """Score ridge regression by mean squared error and Spearman's correlation."""
    splits, _ = _splits(task, options, "regress")

    def scores(truth: Any, predicted: Any) -> dict[str, float]:
        return Ranked(np.asarray(predicted), np.asarray(truth), np.ones(len(truth))).compute()  # type: ignore[arg-type]

    def parameters(model: Any) -> int:
        return int(model.coef_.size + 1)

    return _chosen("regress", splits, RIDGES, lambda alpha: Ridge(alpha=alpha, random_state=0), scores, parameters)


def similarity(task: type[Task], options: Any) -> dict[str, Any]:
    """Rank texts by the cosine of their TF-IDF vectors, of words alone: nothing is trained, and nothing chosen."""
    splits, kind = _splits(task, options, "similarity", analyzer=split_words, min_df=1)

    def scores(split: _Split) -> dict[str, float]:
        vectors = split.vectors  # of length 1, so products are cosines
        return shares(ranks(lambda part: (vectors[part] @ vectors.T).toarray(), kind.encode(split.targets)))

    return {
        "encoder": "tf-idf",
        "pooler": "cosine",
        "test": scores(splits["test"]),
        "validation": scores(splits["validation"]),
        "parameters": splits["train"].vectors.shape[1],
    }


def _splits(task: Any, options: Any, objective: str, **counted: Any) -> tuple[dict[str, _Split], Any]:
    """Return the splits of a task of texts, vectors fitted to the training split, and its targets, fitted too.

    What is counted is words and pairs of them, in two texts at least, unless said otherwise.

    Raises:
        UsageError: scikit-learn is missing, or the task has other targets.
        DataError: there are too few texts.
    """
    if TfidfVectorizer is None:
        raise UsageError('the linear baseline needs scikit-learn: python -m pip install -e ".[baselines]"')
    check_texts(task)
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    targets: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for text, target, split in task.examples(options):
        texts[split].append(text)
        targets[split].append(target)
    for split in SPLITS:
        if not texts[split]:
            raise DataError(f"the {split} split has no examples: give the data more rows.")
    kind = task.targets_of(options).fit(targets)
    lacking = [size for size in OBJECTIVES[objective].needs if size not in {"words", *kind.sizes}]
    if lacking:
        raise UsageError(f"the objective {objective} needs {' and '.join(lacking)}, which the task has not.")
    vectorizer = TfidfVectorizer(**{"analyzer": _words_and_pairs, "sublinear_tf": True, "min_df": 2} | counted)
    try:
        vectorizer.fit(texts["train"])
    except ValueError:  # the vocabulary is empty
        raise DataError("no word is in two texts of the train split: give the data more rows.") from None
    return {split: _Split(vectorizer.transform(texts[split]), targets[split]) for split in SPLITS}, kind


def _check_classes(labels: Sequence[str]) -> None:
    """Raise where the training split has nothing to tell apart."""
    if len(set(labels)) < 2:
        raise DataError(f"every text of the train split has the class {labels[0]!r}: give it two classes.")


def _chosen(
    objective: str,
    splits: dict[str, _Split],
    penalties: Sequence[float],
    model_of: Callable[[float], Any],
    scores: Callable[[Any, Any], dict[str, float]],
    parameters: Callable[[Any], int],
) -> dict[str, Any]:
    """Fit a model a penalty, choose by the metric of the objective on validation, and test that one."""
    train, validation, test = (splits[name] for name in SPLITS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tags that all texts have
        fitted = {penalty: model_of(penalty).fit(train.vectors, train.targets) for penalty in penalties}
    validated = {
        penalty: scores(validation.targets, model.predict(validation.vectors)) for penalty, model in fitted.items()
    }
    metric, better = OBJECTIVES[objective].chosen_by
    choose = max if better == "max" else min
    best = choose(penalties, key=lambda penalty: validated[penalty][metric])
    return {
        "encoder": "tf-idf",
        "pooler": "linear",
        "test": scores(test.targets, fitted[best].predict(test.vectors)),
        "validation": validated[best],
        "penalty": best,
        "parameters": parameters(fitted[best]),
    }


def _words_and_pairs(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbours."""
    words = split_words(text)
    return words + [f"{left} {right}" for left, right in pairwise(words)]
