"""20,000 texts of 300 words: what training holds in memory and how long it waits for input; prints both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TEXTS, WORDS, VOCABULARY, CLASSES = 20_000, 300, 60_000, 4


def write_texts(path: Path) -> None:
    """Words as frequent as in natural text (Zipf), and one a text that tells its class."""
    random = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = np.array(["".join(random.choice(letters, random.integers(3, 11))) for _ in range(VOCABULARY)])
    share = 1 / np.arange(1, VOCABULARY + 1)
    with path.open("w", encoding="utf-8") as file:
        file.write("text\tlabel\n")
        for index in range(TEXTS):
            text = random.choice(words, WORDS, p=share / share.sum())
            text[random.integers(WORDS)] = f"clue{index % CLASSES}"
            file.write(f"{' '.join(text)}\tclass {index % CLASSES}\n")


@pytest.mark.slow
def test_memory_and_input_wait(tmp_path):
    """With the encoder that computes least, and so would wait most."""
    write_texts(tmp_path / "texts.tsv")
    options = f"--task file --path {tmp_path / 'texts.tsv'} --encoder bag --data.max-len {WORDS} --epochs 1"
    subprocess.run(
        [sys.executable, "-m", "experiments.train", *options.split(), "--out", str(tmp_path / "run")],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},  # one device: each of several holds all parameters
        cwd=Path(__file__).resolve().parents[2],
        check=True,
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    print(
        f"\nbag: {summary['data']['train']['texts']} texts to train on, "
        f"peak memory {summary['peak_memory_bytes'] / 1e9:.2f} GB, input waits {summary['input_share']:.2%} of a step "
        f"of {1e3 * summary['step_seconds']:.0f} ms, {summary['tokens_per_second']:.0f} words a second"
    )
    assert summary["peak_memory_bytes"] < 2e9
    assert summary["input_share"] <= 0.05
