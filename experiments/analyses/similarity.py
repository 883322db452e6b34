"""How well the cosine of two pooled vectors agrees with what people say: Spearman's correlation over scored pairs."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from scipy import stats

from experiments.base.errors import UsageError
from experiments.base.findings import Findings
from experiments.data import pairs
from experiments.data.pairs import Pair
from experiments.data.text import Example, split_words
from experiments.run.trained import Trained

try:
    from sklearn.feature_extraction.text import TfidfVectorizer
except ImportError:
    TfidfVectorizer = None

_SHORTEST = 1e-12


@dataclasses.dataclass(frozen=True)
class SimilarityOptions:
    """Spearman's correlation of the cosine of pooled vectors with the scores of pairs of texts."""

    pairs: tuple[Path, ...] = ()
    """Files of pairs with a score: CSV or tabs with a header, or the STS benchmark; in an archive: ARCHIVE/NAME."""


class Similarity:
    """Cosines against scores, for the model and for TF-IDF; pairs with a text of the split are counted apart too."""

    Options: ClassVar[type] = SimilarityOptions

    def __init__(self, options: SimilarityOptions):
        if not options.pairs:
            raise UsageError("give one or more files of scored pairs: --ask.pairs FILE")
        self.options = options

    def __call__(self, trained: Trained, examples: Iterable[Example]) -> Findings:
        """Return a row for every file and method."""
        texts = [example.text for example in examples]
        known = {tuple(split_words(text)) for text in texts}
        table, found = [], []
        for path in self.options.pairs:
            read = pairs.read(path)
            new = np.array([not known & {tuple(split_words(text)) for text in (pair.one, pair.other)} for pair in read])
            cosines = {f"{trained.config.encoder}, {trained.config.pooler}": of_model(trained, read)}
            if TfidfVectorizer is not None:
                cosines["tf-idf"] = of_counts(texts, read)
            table += [_row(path, name, values, read, new) for name, values in cosines.items()]
            for at, pair in enumerate(read):
                values = {name: float(one[at]) for name, one in cosines.items()}
                found.append({"file": path.name, **pair._asdict(), "new": bool(new[at]), "cosine": values})
        return Findings(table, {"texts": len(texts), "pairs": len(found)}, found)


def of_model(trained: Trained, read: Sequence[Pair]) -> Float[np.ndarray, " N"]:
    """Return the cosine of the pooled vectors of every pair; 0 where one has no direction."""
    vectors = trained.pooled([text for pair in read for text in pair[:2]]).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SHORTEST)
    return (vectors[::2] * vectors[1::2]).sum(axis=1)


def of_counts(texts: Sequence[str], read: Sequence[Pair]) -> Float[np.ndarray, " N"]:
    """Return the cosine of TF-IDF vectors of words; what is rare is told by the texts and the pairs together."""
    sides = [[pair.one for pair in read], [pair.other for pair in read]]
    vectorizer = TfidfVectorizer(analyzer=split_words, sublinear_tf=True).fit([*texts, *sides[0], *sides[1]])
    one, other = map(vectorizer.transform, sides)
    return np.asarray(one.multiply(other).sum(axis=1)).ravel()


def _row(path: Path, name: str, cosines: np.ndarray, read: Sequence[Pair], new: np.ndarray) -> dict[str, Any]:
    scores = np.array([pair.score for pair in read])
    return {
        "pairs": path.name,
        "vectors": name,
        "number": len(read),
        "Spearman": spearman(cosines, scores),
        "without a text of the split": int(new.sum()),
        "Spearman of these": spearman(cosines[new], scores[new]),
    }


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return Spearman's correlation of ranks; None where a side does not vary."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other).statistic)
