"""Encoders: words to states. A new one is a file here and a row in the table."""

from experiments.base.contracts import Encoder
from experiments.encoders.bag import MLP, Bag
from experiments.encoders.convolution import CNN, TextCNN
from experiments.encoders.dgcnn import DGCNN
from experiments.encoders.han import HAN
from experiments.encoders.minilm import MiniLM
from experiments.encoders.ordered import OrderedNeurons
from experiments.encoders.recurrent import GRU, LSTM, BiGRU, BiLSTM
from experiments.encoders.transformer import Transformer
from experiments.poolers import POOLERS

ENCODERS: dict[str, type[Encoder]] = {
    "bag": Bag,
    "bigru": BiGRU,
    "bilstm": BiLSTM,
    "cnn": CNN,
    "dgcnn": DGCNN,
    "gru": GRU,
    "han": HAN,
    "lstm": LSTM,
    "minilm": MiniLM,
    "mlp": MLP,
    "onlstm": OrderedNeurons,
    "textcnn": TextCNN,
    "transformer": Transformer,
}

# A hierarchy is made of other rows; parts import no parts, so it is given the tables.
HAN.encoders, HAN.poolers = ENCODERS, POOLERS
