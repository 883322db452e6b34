"""Baselines: what counts of words alone come to, one a kind of objective. A new one is a row in the table."""

from experiments.base.contracts import Baseline
from experiments.baselines import dictionary, linear, ngram

BASELINES: dict[str, Baseline] = {
    "classify": linear.classify,
    "language_model": ngram.language_model,
    "multilabel": linear.multilabel,
    "regress": linear.regress,
    "similarity": linear.similarity,
    "triples": dictionary.triples,
}
