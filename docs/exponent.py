"""Draws docs/exponent.png, what the exponent does to four tokens: ``python docs/exponent.py``."""

from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np

import lnpool

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STATES = jnp.array([[0.4], [0.9], [1.6], [2.2]])
SCORES = jnp.array([1.5, 0.5, 0.8, -0.7])
EXPONENTS = jnp.linspace(-12, 24, 361)
STYLES = ("-", "--", "-.", ":")


def main() -> None:
    """Left: the pooled value with and without sharpened attention. Right: the share of each token."""
    plt.rcParams.update({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.prop_cycle": _colours()})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for sharpen, style, label in ((True, "-", "softmax(p z), the paper"), (False, "--", "softmax(z), sharpen=False")):
        pooled = [lnpool.pool(STATES, SCORES, p, sharpen=sharpen)[0] for p in EXPONENTS]
        left.plot(EXPONENTS, pooled, style, linewidth=2, label=label)
    for h in np.asarray(STATES)[:, 0]:
        left.axhline(h, color="grey", linewidth=0.8, linestyle=":")
    for p, name, place in ((0, "p = 0: geometric mean", (-11.5, 0.92)), (1, "p = 1: attention pooling", (4, 0.6))):
        value = float(lnpool.pool(STATES, SCORES, float(p))[0])
        left.annotate(name, (p, value), xytext=place, fontsize=9, arrowprops={"arrowstyle": "-", "linewidth": 0.8})
        left.plot(p, value, "o", color="black", markersize=5)
    left.set(xlabel="exponent p", ylabel="pooled value r", title="The pooled value (grey: the four states)")
    left.legend(fontsize=9)
    shares = np.stack([lnpool.contributions(STATES, SCORES, p)[:, 0] for p in EXPONENTS])
    for i, style in enumerate(STYLES):
        label = f"h = {STATES[i, 0]:.1f}, score {SCORES[i]:+.1f}"
        right.plot(EXPONENTS, shares[:, i], style, linewidth=2, label=label)
    right.set(xlabel="exponent p", ylabel="share w of the token", title="Who makes the value (sharpened attention)")
    right.legend(fontsize=9)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


def _colours() -> "matplotlib.cycler":
    """The colour-blind safe colours of Okabe and Ito."""
    return matplotlib.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7"])


if __name__ == "__main__":
    main()
