"""Golden values of ordered neurons, by the program of the paper's authors: writes `ordered.npz`.

    python -m tests.harness.make_ordered FOLDER    # needs torch, which no test needs

FOLDER holds `ON_LSTM.py` and `locked_dropout.py` of github.com/yikangshen/Ordered-Neurons (BSD-3-Clause), commit
46d63cd. Two layers in float64, without noise: states and distances, and the gradients under random cotangents.
"""

import sys
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("ordered.npz")
TEXTS, WORDS, VECTOR, FEATURES, CHUNKS, LAYERS = 3, 9, 5, 12, 4, 2


def main(folder: str) -> None:
    """Write the inputs, the parameters, the states of the last layer, the distances of all, and gradients."""
    import torch

    sys.path.insert(0, folder)
    from ON_LSTM import ONLSTMStack  # type: ignore[import-not-found]

    random = np.random.default_rng(0)
    stack = ONLSTMStack([VECTOR] + [FEATURES] * LAYERS, chunk_size=FEATURES // CHUNKS).double().eval()
    found = {"vectors": random.normal(size=(WORDS, TEXTS, VECTOR))}
    for name, parameter in stack.named_parameters():
        found[name] = random.normal(size=parameter.shape, scale=0.7)
        parameter.data = torch.tensor(found[name])
    vectors = torch.tensor(found["vectors"], requires_grad=True)
    states, _, _, _, (distances, _) = stack(vectors, stack.init_hidden(TEXTS))
    found |= {"states": states.detach().numpy(), "distances": distances.detach().numpy()}
    found |= {"of_states": random.normal(size=states.shape), "of_distances": random.normal(size=distances.shape)}
    loss = (states * torch.tensor(found["of_states"])).sum() + (distances * torch.tensor(found["of_distances"])).sum()
    loss.backward()
    found["gradient/vectors"] = vectors.grad.numpy()
    for name, parameter in stack.named_parameters():
        found[f"gradient/{name}"] = parameter.grad.numpy()
    np.savez_compressed(PATH, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
