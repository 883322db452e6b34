"""Draws what the exponent does, docs/exponent.svg and docs/levels.svg: ``python docs/exponent.py [FOLDER]``."""

import functools
import sys
from pathlib import Path

import jax
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
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind people


def style() -> None:
    """One look for the pictures of these pages, and the same bytes from the same program."""
    plt.rcParams.update(
        {
            "font.size": 11,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "lines.linewidth": 2,
            "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
            "svg.hashsalt": "lnpool",
        }
    )


def save(figure: "matplotlib.figure.Figure", name: str) -> None:
    """Write a figure beside this file, or into the folder of the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    figure.savefig(folder / name, metadata={"Date": None})


def values_and_shares() -> None:
    """Left: the pooled value with and without sharpened attention. Right: the share of each token."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for sharpen, line, label in ((True, "-", "softmax(p z), the paper"), (False, "--", "softmax(z), sharpen=False")):
        pooled = jax.vmap(functools.partial(lnpool.pool, STATES, SCORES, sharpen=sharpen))(EXPONENTS)
        left.plot(EXPONENTS, pooled[:, 0], line, label=label)
    for h in np.asarray(STATES)[:, 0]:
        left.axhline(h, color="grey", linewidth=0.8, linestyle=":")
    for p, name, place in ((0, "p = 0: geometric mean", (-11.5, 0.92)), (1, "p = 1: attention pooling", (4, 0.6))):
        value = float(lnpool.pool(STATES, SCORES, float(p))[0])
        left.annotate(name, (p, value), xytext=place, fontsize=9, arrowprops={"arrowstyle": "-", "linewidth": 0.8})
        left.plot(p, value, "o", color="black", markersize=5)
    left.set(xlabel="exponent p", ylabel="pooled value r", title="The pooled value (grey: the four states)")
    left.legend(fontsize=9)
    shares = jax.vmap(functools.partial(lnpool.contributions, STATES, SCORES))(EXPONENTS)[..., 0]
    for i, line in enumerate(STYLES):
        right.plot(EXPONENTS, shares[:, i], line, label=f"h = {STATES[i, 0]:.1f}, score {SCORES[i]:+.1f}")
    right.set(xlabel="exponent p", ylabel="share w of the token", title="Who makes the value (sharpened attention)")
    right.legend(fontsize=9)
    save(figure, "exponent.svg")


def levels() -> None:
    """All pairs of states that pool to 1: left with equal attention, right with three quarters of it on one."""
    h = jnp.linspace(0.01, 2, 400)
    pairs = jnp.stack(jnp.meshgrid(h, h), axis=-1)[..., None]  # [400 400 T D], two tokens of one feature
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.3), constrained_layout=True, sharey=True)
    titles = ("Equal attention", "Attention 3/4 on token 1")
    for axis, weights, title in zip(axes, ((0.5, 0.5), (0.75, 0.25)), titles, strict=True):
        scores = jnp.broadcast_to(jnp.log(jnp.array(weights)), pairs.shape[:-1])
        for p, line, colour in zip((0.0, 1.0, 3.0, jnp.inf), STYLES, COLOURS, strict=True):
            pooled = jax.jit(lnpool.pool)(pairs, scores, p)[..., 0]
            axis.contour(h, h, pooled, levels=[1.0], colors=[colour], linestyles=[line])
            axis.plot([], [], line, color=colour, label="p → ∞" if p == jnp.inf else f"p = {p:.0f}")
        axis.set(xlabel="state of token 1", title=title, aspect="equal")
    axes[0].set_ylabel("state of token 2")
    axes[0].legend(fontsize=9, loc="lower left")
    save(figure, "levels.svg")


if __name__ == "__main__":
    style()
    values_and_shares()
    levels()
