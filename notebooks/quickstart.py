# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # lnpool in one notebook
#
# Train a text encoder whose pooling learns its own norm, look at what it learned, and compare it with other poolings.
# The notebook runs on a TPU, a GPU or a CPU, in a clone of the repository, and all it does is call the project's
# commands. Most of the time goes into nine trainings, of about two minutes each on two CPU cores.

# %% tags=["parameters"]
# The sizes. RUNS is where results go; SMALL=1 in the environment is for a quick look at every cell.
import os

small = os.environ.get("SMALL") == "1"
os.environ.setdefault("RUNS", "runs/quickstart")
tiny = "--encoder bag --epochs 1 --evaluations 1 --data.buckets 1 --data.batch-size 1024 --data.max-len 12"
os.environ["MODEL"] = tiny if small else "--encoder bigru"
os.environ["POOLERS"] = "log_learned_norm attention" if small else "log_learned_norm attention mean"
os.environ["SEEDS"] = "0" if small else "0 1 2"
os.environ["TOKENS"] = "8000" if small else "1000000"

# %%
# The clone. On Colab: put it on the machine first, by upload, from Drive or with git, and change into it with %cd.
import sys
from pathlib import Path

root = next((here for here in (Path.cwd(), *Path.cwd().parents) if (here / "lnpool/__init__.py").exists()), None)
if root is None:
    raise RuntimeError("this is no clone of the repository of lnpool: get one, change into it with %cd, and run again")
os.chdir(root)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # python is this one

# %% language="bash"
# # Packages have lower bounds only: what is installed and new enough stays as it is, jax and libtpu above all.
# python -c "import experiments, beartype, pytest, pytest_timeout" 2> /dev/null \
#     || python -m pip install -q -e ".[experiments,device]"

# %% [markdown]
# ## The device
#
# JAX takes a TPU or a GPU if it sees one, and else the CPU. On Colab: Runtime, Change runtime type. The commands below
# are processes of their own, so that none keeps the device from the next; this notebook itself does not use it.

# %% language="bash"
# python -c "import jax; print(jax.default_backend(), jax.devices())"

# %% [markdown]
# ## Training
#
# The main command of the README, on real text that the repository carries: 62,721 definitions of WordNet in ten
# classes. Then the same with other poolings. A run that is there already is not made again.

# %% language="bash"
# set -e
# for pooler in $POOLERS; do
#     for seed in $SEEDS; do
#         out="$RUNS/$pooler-$seed"
#         [ -e "$out/summary.json" ] && continue
#         python -m experiments.train $MODEL --pooler $pooler --seed $seed --out "$out" 2>&1
#     done
# done

# %% [markdown]
# ## The learned exponent over training
#
# The exponent p starts at 2. At 1 the pooling is attention pooling; the larger p is, the more the largest states count.

# %%
from IPython.display import HTML, Image, Markdown

runs = Path(os.environ["RUNS"])
Image(runs / "log_learned_norm-0" / "training.png", width=900)

# %% [markdown]
# ## What a text is read by
#
# The darker a word's ground, the more it weighs: in the attention, and in the pooled vector.

# %% language="bash"
# set -e
# rm -f "$RUNS.html"
# python -m experiments.explain "$RUNS/log_learned_norm-0" --html "$RUNS.html" \
#     "a small domesticated feline mammal that is kept as a pet" "the act of singing in a loud voice"

# %%
import html

page = html.escape(Path(f"{runs}.html").read_text())
HTML(f'<iframe srcdoc="{page}" style="width: 100%; height: 34rem; border: 0"></iframe>')

# %% [markdown]
# ## The poolings compared
#
# Means over seeds with 95 % intervals, and the path of p in every run. The report is a function of the run folders.

# %% language="bash"
# python -m experiments.report "$RUNS" --page "$RUNS-report.md" && python -m experiments.report "$RUNS"

# %%
figures = runs.parent / f"{runs.name}-report"
Image(figures / f"{runs.name}-accuracy.png", width=700)

# %%
Image(figures / f"{runs.name}-exponent.png", width=500)

# %% [markdown]
# ## One long document over all cores
#
# A document need not fit on one device: each pools its tokens, and a few numbers a feature meet. Here eight threads of
# the processor act as devices; the differences from one device are printed.

# %% language="bash"
# JAX_PLATFORMS=cpu python -m benchmarks.million --tokens $TOKENS

# %% [markdown]
# ## This machine's page
#
# The tests of the accelerator and the times of all forms against attention pooling, on one page. Please send it in: the
# order in which implementations are chosen can then follow what was measured. On a CPU it is only a try.

# %% language="bash"
# set -e
# backend=$(python -c "import jax; print(jax.default_backend())")
# python -m benchmarks.device $([ "$backend" != cpu ] || echo --cpu) --out "$RUNS-device.md" > /dev/null

# %%
Markdown(Path(f"{runs}-device.md").read_text())
