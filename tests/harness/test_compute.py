"""bfloat16 in the encoder, float32 in all that is kept, summed or compared."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.base.options import decisive
from experiments.encoders import ENCODERS
from experiments.poolers import POOLERS
from experiments.run.config import parse_args
from experiments.train import main
from tests.harness.conftest import TINY, Toy
from tests.harness.test_resume import interrupt, result
from tests.harness.tiny import batch_of, model_of, prepare

LINE = [*TINY, "--pooler", "attention", "--data.buckets", "1", "--epochs", "3", "--compute"]


def model_in(dtype: str, encoder: str, pooler: str):
    return model_of(encoder, pooler, dtype)


def types(encoder: str, pooler: str) -> dict[str, str]:
    """The dtypes of all that a model in bfloat16 shows, which are the same with and without noise."""

    def shown(noise: bool):
        rngs = nnx.Rngs(0) if noise else None
        return model_in("bfloat16", encoder, pooler)(batch_of(encoder), rngs)

    dtypes = [{name: str(x.dtype) for name, x in jax.eval_shape(partial(shown, n)).items()} for n in (True, False)]
    assert dtypes[0] == dtypes[1]
    return dtypes[0]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_computes_in_bfloat16(encoder):
    found = types(encoder, "attention")
    assert (found["states"], found["attention"], found["logits"]) == ("bfloat16", "float32", "float32")


@pytest.mark.parametrize("pooler", POOLERS)
def test_every_pooler_takes_bfloat16_and_weighs_in_float32(pooler):
    found = types("bag", pooler)
    assert found["logits"] == "float32"
    summed_with = {"attention", "p", "sharpness"}
    assert {found[name] for name in summed_with & set(found)} <= {"float32"}


def test_logits_are_near_those_of_float32():
    models = (model_in(dtype, "transformer", "mean") for dtype in ("float32", "bfloat16"))
    wanted, found = (np.asarray(jax.jit(model)(batch_of("transformer"))["logits"]) for model in models)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    assert not np.array_equal(found, wanted)


def test_gradients_and_the_state_are_float32():
    config = parse_args([*LINE, "bfloat16", "--optim.average", "0.9"])
    task = Toy(config.data)
    prepared = prepare(config, task)
    state, report = prepared.train(prepared.state, task.train_batch(0, 0))
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != "int32"]
    assert set(floats) == {np.dtype("float32")}
    assert {leaf.dtype for leaf in [report.loss, *report.norms]} == {np.dtype("float32")}
    text = next(iter(prepared.programs.train._programs.values())).as_text()
    assert "bf16[" in text


def losses_in(dtype: str, folder: Path) -> float:
    assert main([*LINE, dtype, "--out", str(folder)]) == 0
    return json.loads((folder / "summary.json").read_text())["test"]["loss"]


@pytest.mark.slow
def test_training_is_as_good(tmp_path):
    wanted, found = (losses_in(dtype, tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    assert found == pytest.approx(wanted, rel=0.05)
    assert found != wanted


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Stopped after the second of three batches whose gradients make one update."""
    line = [*LINE, "bfloat16", "--optim.accumulate", "3", "--out"]
    assert main([*line, str(tmp_path / "whole")]) == 0
    interrupt(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*line, str(tmp_path / "broken")]) == 75
    assert main(["--resume", str(tmp_path / "broken")]) == 0
    assert result(tmp_path / "broken") == result(tmp_path / "whole")


def test_cells_keep_the_names_that_they_had_before_this_option():
    assert "compute" not in decisive(parse_args([*LINE, "float32"]))
    assert decisive(parse_args([*LINE, "bfloat16"]))["compute"] == "bfloat16"
