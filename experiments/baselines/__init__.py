"""Baselines: what counts of words, or ids, alone come to, one a kind of objective. A new one is a row in the table."""

from experiments.base.contracts import Baseline
from experiments.baselines import dictionary, linear, ngram, ratings, titles

BASELINES: dict[str, Baseline] = {
    "classify": linear.classify,
    "language_model": ngram.language_model,
    "multilabel": linear.multilabel,
    "rating": ratings.rating,
    "regress": linear.regress,
    "similarity": linear.similarity,
    "title": titles.title,
    "triples": dictionary.triples,
}
