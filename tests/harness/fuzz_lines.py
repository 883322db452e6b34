"""Random command lines: words of the right ones, changed, repeated, left out, with values of every kind.

What a line would do is not done: a configuration that is accepted is where a case ends. Everything else is one line on
stderr of at most 300 characters with the exit code of a mistake, and nothing on stdout.
"""

import contextlib
import io
import os
import random
import traceback
from pathlib import Path
from unittest import mock

from experiments import baseline, report, sweep, train
from experiments.base.errors import LONGEST
from experiments.encoders import ENCODERS
from experiments.objectives import OBJECTIVES
from experiments.poolers import POOLERS
from experiments.tasks import TASKS

RESERVES = True
"""JAX reserves more addresses than it uses."""
COMMANDS = {"train": train.main, "sweep": sweep.main, "report": report.main, "baseline": baseline.main}
WORDS = """
--task --encoder --pooler --objective --seed --epochs --out --resume --evaluations --patience --compute
--debug --profile --tensorboard --data.batch-size --data.max-len --data.buckets --data.min-count
--data.sentences --archives --encode.features --encode.vectors --encode.dropout --pool.p-init --pool.heads
--pool.hidden --pool.exponent --head.dropout --optim.learning-rate --optim.clip --optim.average
--optim.accumulate --optim.bad-steps --save.minutes --save.keep --devices.count --devices.coordinator
--devices.processes --devices.process --devices.wait --path --set --format --page --text --pivot --dry-run
--retry-failed --no-such-option -x -- --=3 --data --pool. --.p
"""
FLAGS = WORDS.split()
VALUES = ["0", "1", "-1", "3", "1e400", "nan", "inf", "0.5", "9" * 1000, "x" * 1000, "", " ", "\n", "\x1b[2J", "\u00b1",
          "true", "None", "[1]", "{}", "a=1", "seed=[0,1]", "epochs=", "/dev/zero", ".", "..", "/", "pipe", "nowhere",
          "float32", "mean", "host:99999", "::1:0", "markdown", "a.md", "trec: what", "\udcff", "\U0001f600",
          *TASKS, *ENCODERS, *POOLERS, *OBJECTIVES]  # fmt: skip


class Accepted(BaseException):
    """A configuration was accepted."""


def accept(*_: object, **__: object) -> None:
    """Stand where the work begins."""
    raise Accepted


def line_of(draw: random.Random) -> list[str]:
    """A command line."""
    words: list[str] = []
    for _ in range(draw.choice([1, 1, 2, 3, 5, 9])):
        flag, value = draw.choice(FLAGS), draw.choice(VALUES)
        if draw.random() < 0.1:
            at = draw.randrange(len(flag))
            flag = flag[:at] + draw.choice(["", "-", "x", "=", "\n", "e" * 1000]) + flag[at + 1 :]
        words += draw.choice([[flag, value], [flag, value], [f"{flag}={value}"], [flag], [value]])
    return words


def case(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """Return what was tried, how it ended, and the message."""
    draw = random.Random(f"{seed} {number}")
    name, words = draw.choice([*COMMANDS, "train", "train"]), line_of(draw)
    words = [word for word in words if word != "--debug"]
    tried, out, err = f"{name} {[word[:60] for word in words]}", io.StringIO(), io.StringIO()
    os.mkfifo(folder / "pipe")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.ExitStack() as around:
            for place in ("experiments.train.train", "experiments.sweep.sweep", "experiments.baseline.score",
                          "experiments.base.devices.meet", "experiments.base.devices._initialize"):  # fmt: skip
                around.enter_context(mock.patch(place, accept))
            around.enter_context(contextlib.redirect_stdout(out))
            around.enter_context(contextlib.redirect_stderr(err))
            code = COMMANDS[name](words)
    except Accepted:
        return tried, "read", ""
    except SystemExit as stop:
        return tried, "traceback" if stop.code else "read", f"exit {stop.code}"
    except BaseException:
        return tried, "traceback", traceback.format_exc()
    finally:
        os.chdir(before)
    said = err.getvalue()
    if code == 0:
        return tried, "read", ""
    if not said.endswith("\n") or said.count("\n") != 1 or len(said) > LONGEST + 1 or not said[:-1].isprintable():
        return tried, "traceback" if said else "silent", said[:2000]
    return tried, "one line", said.strip()
