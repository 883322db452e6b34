"""Analyses: what is asked of trained models. A new one is a file here and a row in the table."""

from experiments.analyses.communities import Communities
from experiments.analyses.gradient import Gradient
from experiments.analyses.leave_one_out import LeaveOneOut
from experiments.analyses.similarity import Similarity
from experiments.analyses.tiers import Tiers
from experiments.base.contracts import Analysis

ANALYSES: dict[str, type[Analysis]] = {
    "communities": Communities,
    "gradient": Gradient,
    "leave_one_out": LeaveOneOut,
    "similarity": Similarity,
    "tiers": Tiers,
}
