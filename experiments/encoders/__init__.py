"""Encoders: words to states. A new one is a file here and a row in the table."""

from experiments.contracts import Encoder
from experiments.encoders.bag import Bag
from experiments.encoders.bigru import BiGRU
from experiments.encoders.cnn import CNN

ENCODERS: dict[str, type[Encoder]] = {"bag": Bag, "bigru": BiGRU, "cnn": CNN}
