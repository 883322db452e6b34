"""What pooled vectors know of the classes: nearest neighbours and a linear probe, with frozen vectors.

The vectors of the model stand beside those of the same model before any training, and beside latent semantic analysis
(Deerwester et al. 1990): a truncated singular value decomposition of TF-IDF vectors of words.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.base.errors import DataError, UsageError
from experiments.base.findings import Findings
from experiments.base.options import Interval
from experiments.data.text import Example, split_words
from experiments.data.text_task import SPLITS
from experiments.run import build
from experiments.run.trained import Trained

try:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler
except ImportError:
    TfidfVectorizer = None

PENALTIES = (0.01, 0.1, 1.0)
"""Inverse strengths of the penalty of the probe, which goes on from one to the next."""
HELD_OUT = ("validation", "test")
"""Splits that are scored: settings are chosen on the first, the second is told."""
ITERATIONS = 50
"""Iterations of the probe at most for each penalty; what it has reached then counts."""


@dataclasses.dataclass(frozen=True)
class ProbeOptions:
    """Classes by the nearest pooled vectors and by a linear probe; all splits are needed: --split all."""

    neighbours: Annotated[int, Interval("[1, 1000]")] = 5
    """Training texts that vote, those whose vectors have the largest cosine with that of a text."""
    lsa: Annotated[int, Interval("[1, 4096]")] = 128
    """Numbers of the vectors of latent semantic analysis."""
    shuffled: bool = False
    """Shuffle the classes of the training texts: what is left above chance is a fault of the measurement."""


class Labelled(NamedTuple):
    """The vectors of a split, and the classes of its texts."""

    vectors: Float[np.ndarray, "N D"]
    classes: Sequence[str]


class Probe:
    """Accuracies of nearest neighbours and of the probe: the run, the same model untrained, and LSA."""

    Options: ClassVar[type] = ProbeOptions

    def __init__(self, options: ProbeOptions):
        if TfidfVectorizer is None:
            raise UsageError('probes need scikit-learn: python -m pip install -e ".[baselines]"')
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return a row for every kind of vectors."""
        by_split = _by_split(examples, self.options)
        texts = {split: [example.text for example in some] for split, some in by_split.items()}
        classes = {split: [example.target for example in some] for split, some in by_split.items()}
        if self.options.shuffled:
            classes["train"] = np.random.default_rng(trained.config.seed).permutation(classes["train"]).tolist()
        fresh, embeddings = build.objective(trained.config, trained.codec.sizes)
        build.read_vectors(embeddings, trained.config, trained.codec)
        methods = {
            "this run": of_model(trained, texts),
            "untrained": of_model(trained._replace(objective=fresh), texts),
            f"LSA-{self.options.lsa}": of_counts(texts, self.options.lsa),
        }
        table = []
        for name, vectors in methods.items():
            splits = {split: Labelled(vectors[split], classes[split]) for split in SPLITS}
            near, (penalty, linear) = nearest(splits, self.options.neighbours), probe(splits)
            table.append(
                {
                    "vectors": name,
                    "numbers": vectors["train"].shape[1],
                    f"{self.options.neighbours}-NN": near["test"],
                    "probe": linear["test"],
                    "C": penalty,
                    f"{self.options.neighbours}-NN, validation": near["validation"],
                    "probe, validation": linear["validation"],
                }
            )
        facts = {split: len(some) for split, some in texts.items()}
        return Findings(table, {"classes": len(set(classes["train"])), **facts}, [])


def _by_split(examples: Iterable[Example], options: ProbeOptions) -> dict[str, list[Example]]:
    """Return the examples of every split, which are to have a class each."""
    found: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for example in examples:
        if not isinstance(example.target, str):
            raise UsageError(f"a probe tells classes, but a text has the target {example.target!r}.")
        found[example.split].append(example)
    lacking = [split for split, some in found.items() if not some]
    if lacking:
        raise UsageError(f"there are no texts of the {lacking[0]} split: a probe needs all splits, give --split all.")
    if len(found["train"]) < options.neighbours or len({example.target for example in found["train"]}) < 2:
        raise DataError("there are too few training texts for a probe: ask about more texts.")
    return found


def of_model(trained: Trained, texts: dict[str, list[str]]) -> dict[str, Float[np.ndarray, "N D"]]:
    """Return the pooled vectors of the texts of every split."""
    return {split: trained.pooled(some).astype(np.float64) for split, some in texts.items()}


def of_counts(texts: dict[str, list[str]], size: int) -> dict[str, Float[np.ndarray, "N D"]]:
    """Return vectors of LSA of length 1, fitted to the training texts."""
    counts = TfidfVectorizer(analyzer=split_words, sublinear_tf=True, min_df=2)
    try:
        known = counts.fit_transform(texts["train"])
    except ValueError:
        raise DataError("no word is in two training texts: there is nothing to compare.") from None
    size = min(size, known.shape[1] - 1, known.shape[0] - 1)
    if size < 1:
        raise DataError("the training texts share one word: there is nothing to compare.")
    reduce = make_pipeline(TruncatedSVD(size, random_state=0), Normalizer()).fit(known)
    return {split: reduce.transform(counts.transform(some)) for split, some in texts.items()}


def nearest(splits: dict[str, Labelled], neighbours: int) -> dict[str, float]:
    """Return the accuracies, by held-out split, of the most frequent class among the nearest training texts."""
    model = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute").fit(*splits["train"])
    return {split: float(model.score(*splits[split])) for split in HELD_OUT}


def probe(splits: dict[str, Labelled]) -> tuple[float, dict[str, float]]:
    """Return the penalty that is best on the validation split, and the accuracies of its probe by held-out split."""
    scaler = StandardScaler().fit(splits["train"].vectors)
    scaled = {name: Labelled(scaler.transform(x), classes) for name, (x, classes) in splits.items()}
    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    found = {}
    for penalty in PENALTIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=penalty).fit(*scaled["train"])
        found[penalty] = {split: float(model.score(*scaled[split])) for split in HELD_OUT}
    best = max(found, key=lambda penalty: found[penalty]["validation"])
    return best, found[best]
