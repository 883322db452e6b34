"""Draws scale limits and parametrisations of the exponent, docs/choosing.svg: ``python docs/choosing.py [FOLDER]``."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
from exponent import save, style

import lnpool

LIMITS = {"tanh": "-", "sigmoid": "--", "softplus": "-.", "relu_clip": ":", "abs": (0, (5, 1)), "exp": (0, (1, 1))}
DARK = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#8C6D1F")


def main() -> None:
    """Left: the state h that a raw state x becomes. Right: p as a function of the trainable rho."""
    style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    x = jnp.linspace(-4, 4, 401)
    for (name, line), colour in zip(LIMITS.items(), DARK, strict=True):
        left.plot(x, jnp.exp(lnpool.scale_limit(x, name)), linestyle=line, color=colour, label=name)
    left.set(xlabel="raw state x", ylabel="state h", ylim=(-0.1, 5.4), title="Scale limits")
    left.legend(fontsize=9, ncols=2, loc="upper left")
    rho = jnp.linspace(-8, 8, 401)
    for name, line, colour in zip(("softplus", "positive", "bounded"), ("-", "--", "-."), DARK, strict=False):
        right.plot(rho, lnpool.exponent.EXPONENTS[name].p(rho), linestyle=line, color=colour, label=name)
    right.plot(rho, rho, linestyle=":", color=DARK[3], label="raw")
    right.set(xlabel=r"trainable $\rho$", ylabel="exponent p", ylim=(-3, 17), title="Parametrisations of p")
    right.legend(fontsize=9)
    save(figure, "choosing.svg")


if __name__ == "__main__":
    main()
