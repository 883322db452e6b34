"""Poolers: states to one vector. A new one is a file here and a row in the table."""

from experiments.contracts import Pooler
from experiments.poolers.attention import Attention
from experiments.poolers.learned_norm import LearnedNorm
from experiments.poolers.max import Max
from experiments.poolers.mean import Mean

POOLERS: dict[str, type[Pooler]] = {"attention": Attention, "learned_norm": LearnedNorm, "max": Max, "mean": Mean}
