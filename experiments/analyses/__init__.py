"""Analyses: what is asked of trained models. A new one is a file here and a row in the table."""

from experiments.analyses.adversarial import Adversarial
from experiments.analyses.communities import Communities
from experiments.analyses.divergence import Divergence
from experiments.analyses.gradient import Gradient
from experiments.analyses.leave_one_out import LeaveOneOut
from experiments.analyses.permutation import Permutation
from experiments.analyses.probe import Probe
from experiments.analyses.similarity import Similarity
from experiments.analyses.tiers import Tiers
from experiments.analyses.titles import TitleSamples
from experiments.analyses.trees import Trees
from experiments.base.findings import Analysis

ANALYSES: dict[str, type[Analysis]] = {
    "adversarial": Adversarial,
    "communities": Communities,
    "divergence": Divergence,
    "gradient": Gradient,
    "leave_one_out": LeaveOneOut,
    "probe": Probe,
    "permutation": Permutation,
    "similarity": Similarity,
    "tiers": Tiers,
    "trees": Trees,
    "titles": TitleSamples,
}
