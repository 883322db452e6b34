"""Objectives: what is learned. A new one is a file here and a row in the table."""

from experiments.base.contracts import Objective
from experiments.objectives.classify import Classify
from experiments.objectives.language_model import LanguageModel
from experiments.objectives.multilabel import Multilabel
from experiments.objectives.rating import Rating
from experiments.objectives.regress import Regress
from experiments.objectives.similarity import Similarity

OBJECTIVES: dict[str, type[Objective]] = {
    "classify": Classify,
    "language_model": LanguageModel,
    "multilabel": Multilabel,
    "rating": Rating,
    "regress": Regress,
    "similarity": Similarity,
}
