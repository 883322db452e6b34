"""bfloat16 in the encoder, float32 in all that is kept, summed or compared."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.clock import Clock
from experiments.config import parse_args
from experiments.encoders import ENCODERS
from experiments.options import decisive
from experiments.poolers import POOLERS
from experiments.steps import prepare
from experiments.train import main
from tests.harness.conftest import TINY, Toy
from tests.harness.test_resume import interrupt, result
from tests.harness.tiny import MASK, TOKENS, model_of

LINE = [*TINY, "--pooler", "attention", "--data.buckets", "1", "--epochs", "3", "--compute"]


def outputs(encoder: str, pooler: str, dtype: str):
    model = model_of(encoder, pooler)
    model.dtype = dtype
    return model(TOKENS, MASK, nnx.Rngs(0))[0], *model(TOKENS, MASK)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_computes_in_bfloat16(encoder):
    wanted, _, _ = outputs(encoder, "attention", "float32")
    trained, logits, shown = outputs(encoder, "attention", "bfloat16")
    assert shown["states"].dtype == "bfloat16"
    assert shown["attention"].dtype == logits.dtype == trained.dtype == "float32"
    np.testing.assert_allclose(trained, wanted, atol=0.05)
    assert not np.array_equal(trained, wanted)


@pytest.mark.parametrize("pooler", POOLERS)
def test_every_pooler_takes_bfloat16_and_weighs_in_float32(pooler):
    _, wanted, _ = outputs("bag", pooler, "float32")
    _, logits, shown = outputs("bag", pooler, "bfloat16")
    assert logits.dtype == "float32"
    assert {shown[name].dtype for name in ("attention", "p", "sharpness") if name in shown} <= {np.dtype("float32")}
    np.testing.assert_allclose(logits, wanted, atol=0.05)


def test_gradients_and_the_state_are_float32():
    config = parse_args([*TINY, "--compute", "bfloat16", "--optim.average", "0.9"])
    task = Toy(config.data)
    state, programs = prepare(config, task, Clock())
    state, report = programs.train(state, task.train_batch(0, 0))
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != "int32"]
    assert set(floats) == {np.dtype("float32")}
    assert {leaf.dtype for leaf in [report.loss, *report.norms]} == {np.dtype("float32")}
    text = next(iter(programs.train._programs.values())).as_text()
    assert "bf16[" in text


def test_training_is_as_good_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        assert main([*LINE, dtype, "--out", str(tmp_path / dtype)]) == 0
        losses[dtype] = json.loads((tmp_path / dtype / "summary.json").read_text())["test"]["loss"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*LINE, "bfloat16", "--out", str(tmp_path / "broken")]) == 75
    assert main(["--resume", str(tmp_path / "broken")]) == 0
    assert result(tmp_path / "broken") == result(tmp_path / "bfloat16")


def test_cells_keep_the_names_that_they_had_before_this_option():
    assert "compute" not in decisive(parse_args([*LINE, "float32"]))
    assert decisive(parse_args([*LINE, "bfloat16"]))["compute"] == "bfloat16"
