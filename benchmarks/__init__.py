"""How fast pooling is, measured: lnpool, the formulas that it replaces, and PyTorch, in interleaved rounds.

    shapes.py    named shapes and their random inputs
    rows.py      what is measured in JAX: yardsticks, formulas under autodiff, every implementation of lnpool
    torch_rows.py    what is measured in PyTorch, when it is installed
    programs.py  a row at a shape -> compiled programs: forward, forward and backward, the same into a donated buffer
    timing.py    programs -> milliseconds, in rounds of rotated order; the host's clock, or the device's own times
    record.py    reading and writing the JSON file of a run, and what ran it
    table.py plot.py    a record -> Markdown and a figure; no number is typed by hand
    pool.py      `python -m benchmarks.pool`: measure and print
    device.py    `python -m benchmarks.device`: the tests and times of an accelerator on one page
    attention.py `python -m benchmarks.attention`: memory and time of the forms of attention of the transformer
    million.py   `python -m benchmarks.million`: one document of a million tokens over eight devices
    page.py      `python -m benchmarks.page FILE.json`: write docs/performance.md
    targets.py   `python -m benchmarks.targets FILE.json`: what the project promises against what was measured

Needs jax and numpy; the extra `bench` adds PyTorch and matplotlib.
"""
