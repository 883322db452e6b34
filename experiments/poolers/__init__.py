"""Poolers: states to one vector. A new one is a file here and a row in the table."""

from experiments.base.contracts import Pooler
from experiments.poolers.attention import Attention
from experiments.poolers.dot_attention import DotAttention
from experiments.poolers.first import First
from experiments.poolers.last import Last
from experiments.poolers.latent_query import LatentQuery
from experiments.poolers.learned_norm import LearnedNorm
from experiments.poolers.log_sum_exp import LogSumExp
from experiments.poolers.max import Max
from experiments.poolers.mean import Mean
from experiments.poolers.naive_norm import NaiveNorm
from experiments.poolers.power_mean import PowerMean
from experiments.poolers.power_means import PowerMeans
from experiments.poolers.simpool import SimPool
from experiments.poolers.soft_pool import SoftPool
from experiments.poolers.sum_sqrt import SumSqrt

POOLERS: dict[str, type[Pooler]] = {
    "attention": Attention,
    "dot_attention": DotAttention,
    "first": First,
    "last": Last,
    "latent_query": LatentQuery,
    "learned_norm": LearnedNorm,
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
