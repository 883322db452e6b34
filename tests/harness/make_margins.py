"""Golden values of the losses with a margin, by an independent program: writes `margins.npz`.

    python -m tests.harness.make_margins    # needs torch and pytorch-metric-learning 2.9.0, which no test needs

Cosines of random vectors in float64, of vectors on both sides of a class and close to it, and of the opposite vector.
CosFaceLoss is AM-Softmax, SphereFaceLoss A-Softmax (its vectors are of length 1 here), ArcFaceLoss takes degrees;
NormalizedSoftmaxLoss is the softmax of cosines, which it divides by its temperature.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("margins.npz")
CLASSES, FEATURES, SCALE = 7, 5, 30.0
MARGIN, RADIANS, MULTIPLES = 0.35, 0.5, (2, 3, 4)


def inputs() -> dict[str, np.ndarray]:
    """Vectors, rows of the classes, and labels; the first vectors lie at known angles to their class."""
    random = np.random.default_rng(0)
    classes = random.normal(size=(CLASSES, FEATURES))
    labels = random.integers(0, CLASSES, 40)
    vectors = random.normal(size=(len(labels), FEATURES))
    aside = vectors - (vectors * classes[labels]).sum(1, keepdims=True) * classes[labels] / np.square(
        classes[labels]
    ).sum(1, keepdims=True)
    for row, angle in enumerate(np.linspace(0.02, np.pi - 0.02, 24)):
        right = classes[labels[row]] / np.linalg.norm(classes[labels[row]])
        vectors[row] = np.cos(angle) * right + np.sin(angle) * aside[row] / np.linalg.norm(aside[row])
    return {"vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "classes": classes, "labels": labels}


def main() -> None:
    """Write the inputs, and losses with their gradients with respect to the vectors under random cotangents."""
    import torch
    from pytorch_metric_learning import losses, reducers

    arrays = inputs()
    cotangents = np.random.default_rng(1).normal(size=len(arrays["labels"]))
    size = {"num_classes": CLASSES, "embedding_size": FEATURES, "reducer": reducers.DoNothingReducer()}
    programs = {
        "softmax": losses.NormalizedSoftmaxLoss(temperature=1 / SCALE, **size),
        "am_softmax": losses.CosFaceLoss(margin=MARGIN, scale=SCALE, **size),
        "arcface": losses.ArcFaceLoss(margin=np.degrees(RADIANS), scale=SCALE, **size),
        **{f"a_softmax_{m}": losses.SphereFaceLoss(margin=m, scale=SCALE, **size) for m in MULTIPLES},
    }
    found = {**arrays, "cotangents": cotangents}
    for name, program in programs.items():
        program.W.data = torch.tensor(arrays["classes"].T)
        vectors = torch.tensor(arrays["vectors"], requires_grad=True)
        values = program(vectors, torch.tensor(arrays["labels"]))["loss"]["losses"]
        found[f"{name}/value"] = values.detach().numpy()
        (gradient,) = torch.autograd.grad((values * torch.tensor(cotangents)).sum(), vectors)
        found[f"{name}/gradient"] = gradient.numpy()
    np.savez_compressed(PATH, **found)


if __name__ == "__main__":
    main()
