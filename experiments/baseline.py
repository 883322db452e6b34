"""The linear baseline on the same split: TF-IDF of words and word pairs, and a support vector machine.

    python -m experiments.baseline [--task NAME] [--archives DIR] [--out DIR]

The penalty is chosen on the validation split; the test split is read once, at the end.
"""

import dataclasses
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic

from experiments.base.command_line import command, parse
from experiments.base.errors import DataError, UsageError, unknown
from experiments.base.options import changed, validate
from experiments.data.text import Example, split_words
from experiments.data.text_task import SPLITS, TextTask
from experiments.run.config import Data, chosen_names
from experiments.storage.run_folder import RunFolder
from experiments.tasks import TASKS

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.svm import LinearSVC
except ImportError:
    TfidfVectorizer = None

PENALTIES = (0.2, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Options(Generic[Data]):
    """Score TF-IDF with a linear classifier on a task."""

    data: Data
    task: str = "wordnet"
    """What to learn; one of the names in experiments/tasks."""
    out: Path | None = None
    """Run folder for summary.json, new or empty; nothing is written when not given."""
    debug: bool = False
    """Show the traceback of an error."""


def parse_args(arguments: list[str]) -> Options:
    """Return the options of a command line."""
    task = chosen_names(arguments, "task").get("task", "wordnet")
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    data = TASKS[task].Options()
    kind: Any = Options[type(data)]  # type: ignore[misc]
    options = parse(kind, arguments, program="python -m experiments.baseline", default=kind(data=data, task=task))
    validate(options)
    return options


def score(options: Options) -> dict[str, Any]:
    """Fit on the training split, choose the penalty by validation accuracy, test once."""
    began = time.perf_counter()
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    task = TASKS[options.task]
    if not issubclass(task, TextTask):
        raise UsageError(f"the task {options.task} has no texts with one class each: the baseline needs them.")
    for example in task.examples(options.data):
        examples[example.split].append(example)
    for split, rows in examples.items():
        if not rows:
            raise DataError(f"the {split} split has no examples: give the data more rows.")
    labels = {split: [row.target for row in rows] for split, rows in examples.items()}
    if len(set(labels["train"])) < 2:
        raise DataError(f"every text of the train split has the class {labels['train'][0]!r}: give it two classes.")
    vectorizer = TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True, min_df=2)
    try:
        vectorizer.fit(example.text for example in examples["train"])
    except ValueError:
        raise DataError("no word is in two texts of the train split: give the data more rows.") from None
    vectors = {split: vectorizer.transform(row.text for row in rows) for split, rows in examples.items()}
    fitted = {C: LinearSVC(C=C).fit(vectors["train"], labels["train"]) for C in PENALTIES}
    validation = {C: model.score(vectors["validation"], labels["validation"]) for C, model in fitted.items()}
    best = max(PENALTIES, key=validation.__getitem__)
    predicted = fitted[best].predict(vectors["test"])
    return {
        "task": options.task,
        "encoder": "tf-idf",
        "pooler": "linear",
        "seed": 0,
        "fold": getattr(options.data, "fold", 0),
        "options": changed(options, dataclasses.replace(options, data=type(options.data)())),
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
        options = parse_args(arguments)
        if TfidfVectorizer is None:
            raise UsageError('the baseline needs scikit-learn: pip install "lnpool[baselines]"')
        folder = RunFolder(options.out) if options.out else None
        facts = score(options)
        if folder:
            with folder:
                folder.finish(facts)
        test = facts["test"]
        print(f"test accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f} (TF-IDF, linear)")

    return command("baseline", body, arguments)


if __name__ == "__main__":
    sys.exit(main())
