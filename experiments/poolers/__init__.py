"""Poolers: states to one vector. A new one is a file here and a row in the table."""

from experiments.base.contracts import Pooler
from experiments.poolers.attention import Attention
from experiments.poolers.dot_attention import DotAttention
from experiments.poolers.latent_query import LatentQuery
from experiments.poolers.log_sum_exp import LogSumExp
from experiments.poolers.norms import LearnedNorm, LogLearnedNorm, NaiveNorm, PowerMean, PowerMeans
from experiments.poolers.simple import First, Last, Max, Mean, SumSqrt
from experiments.poolers.simpool import SimPool
from experiments.poolers.soft_pool import SoftPool

POOLERS: dict[str, type[Pooler]] = {
    "attention": Attention,
    "dot_attention": DotAttention,
    "first": First,
    "last": Last,
    "latent_query": LatentQuery,
    "learned_norm": LearnedNorm,
    "log_learned_norm": LogLearnedNorm,
    "log_sum_exp": LogSumExp,
    "max": Max,
    "mean": Mean,
    "naive_norm": NaiveNorm,
    "power_mean": PowerMean,
    "power_means": PowerMeans,
    "simpool": SimPool,
    "soft_pool": SoftPool,
    "sum_sqrt": SumSqrt,
}
