"""Objectives: what is learned. A new one is a file here and a row in the table."""

from experiments.base.contracts import Objective
from experiments.objectives.classify import Classify
from experiments.objectives.guided import Adversary, Guided
from experiments.objectives.language_model import LanguageModel
from experiments.objectives.multilabel import Multilabel
from experiments.objectives.mutual_information import MutualInformation
from experiments.objectives.rating import Rating
from experiments.objectives.regress import Regress
from experiments.objectives.similarity import Similarity
from experiments.objectives.title import Title
from experiments.objectives.triples import Triples

OBJECTIVES: dict[str, type[Objective]] = {
    "adversary": Adversary,
    "classify": Classify,
    "guided": Guided,
    "language_model": LanguageModel,
    "multilabel": Multilabel,
    "mutual_information": MutualInformation,
    "rating": Rating,
    "regress": Regress,
    "similarity": Similarity,
    "title": Title,
    "triples": Triples,
}
