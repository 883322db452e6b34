"""The linear baseline on the same split: TF-IDF of words and word pairs, and a support vector machine.

    python -m experiments.baseline [--out DIR]

The penalty is chosen on the validation split; the test split is read once, at the end.
"""

import dataclasses
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.cli import command, parse
from experiments.data import wordnet
from experiments.data.text import split_words
from experiments.errors import UsageError
from experiments.writer import RunFolder

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.svm import LinearSVC
except ImportError:
    TfidfVectorizer = None

PENALTIES = (0.2, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Options:
    """Score TF-IDF with a linear classifier on the wordnet task."""

    out: Path | None = None
    """Run folder for summary.json, new or empty; nothing is written when not given."""
    debug: bool = False
    """Show the traceback of an error."""


def score() -> dict[str, Any]:
    """Fit on the training split, choose the penalty by validation accuracy, test once."""
    began = time.perf_counter()
    examples = {
        split: [example for example in wordnet.read() if example.split == split]
        for split in ("train", "validation", "test")
    }
    vectorizer = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True, min_df=2)
    vectorizer.fit(example.text for example in examples["train"])
    vectors = {split: vectorizer.transform(row.text for row in rows) for split, rows in examples.items()}
    labels = {split: [row.label for row in rows] for split, rows in examples.items()}
    fitted = {C: LinearSVC(C=C).fit(vectors["train"], labels["train"]) for C in PENALTIES}
    validation = {C: model.score(vectors["validation"], labels["validation"]) for C, model in fitted.items()}
    best = max(PENALTIES, key=validation.__getitem__)
    predicted = fitted[best].predict(vectors["test"])
    return {
        "task": "wordnet",
        "encoder": "tf-idf",
        "pooler": "linear",
        "seed": 0,
        "test": {
            "accuracy": float(accuracy_score(labels["test"], predicted)),
            "macro_f1": float(f1_score(labels["test"], predicted, average="macro")),
        },
        "p": None,
        "validation": {"accuracy": float(validation[best])},
        "penalty": best,
        "parameters": int(fitted[best].coef_.size + fitted[best].intercept_.size),
        "seconds": {"total": time.perf_counter() - began},
    }


def _words_and_pairs(text: str) -> list[str]:
    """Return the words of a text and its pairs of neighbours."""
    words = split_words(text)
    return words + [f"{left} {right}" for left, right in pairwise(words)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def body(arguments: list[str]) -> None:
        options = parse(Options, arguments, program="python -m experiments.baseline")
        if TfidfVectorizer is None:
            raise UsageError('the baseline needs scikit-learn: pip install "lnpool[baselines]"')
        folder = RunFolder(options.out) if options.out else None
        facts = score()
        if folder:
            folder.write_json("summary.json", facts)
        test = facts["test"]
        print(f"test accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f} (TF-IDF, linear)")

    return command("baseline", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
