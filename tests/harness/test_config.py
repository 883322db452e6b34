"""The configuration: strict, explained, and the same value from the command line and from JSON."""

import ast
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from typing import get_type_hints

import pytest

from experiments.base.errors import UsageError
from experiments.base.options import Interval, flag, from_dict, leaves, validate
from experiments.encoders import ENCODERS
from experiments.layers.head import HeadOptions
from experiments.poolers import POOLERS
from experiments.run.config import Config, command_line, default_config, existing, from_json, parse_args, to_json
from experiments.tasks import TASKS
from experiments.train import main

BAD_LINES = [
    ("--pooler mena", r"unknown pooler 'mena': did you mean 'mean'\?"),
    ("--pooler=xyz", r"unknown pooler 'xyz': choose one of attention, dot_attention, .*, sum_sqrt\."),
    ("--encoder bigur", r"unknown encoder 'bigur': did you mean 'bigru'\?"),
    ("--task wordnets", r"unknown task 'wordnets': did you mean 'wordnet'\?"),
    ("--pooler", r"argument --pooler: expected one argument"),
    ("--pool.p-ini 3", r"unknown option '--pool.p-ini': did you mean '--pool.p-init'\?"),
    (
        "--pooler mean --pool.heads 2",
        r"option '--pool.heads': it belongs to --pooler latent_query, learned_norm or log_learned_norm\.",
    ),
    (
        "--path a.csv",
        r"unknown option '--path': it belongs to --task file, triple_file, title_file or amazon_ratings\.",
    ),
    ("--lr 0.1", r"unknown option '--lr': did you mean '--optim.learning-rate'\?"),
    ("--batch-size 8", r"unknown option '--batch-size': did you mean '--data.batch-size'\?"),
    ("--dropout 0.1", r"unknown option '--dropout': did you mean '--encode.dropout' or '--head.dropout'\?"),
    ("--quantum 1", r"unknown option '--quantum': (did you mean|choose one of)"),
    ("stray", r"unknown option 'stray'"),
    ("--epochs 10001", r"--epochs 10001 is outside its range: choose a value in \[0, 10000\]\."),
    ("--seed -1", r"--seed -1 is outside its range: choose a value in \[0, 4294967295\]\."),
    ("--optim.learning-rate nan", r"--optim.learning-rate nan is outside its range: choose a value in \(0, 1\]\."),
    ("--encode.dropout 1", r"--encode.dropout 1.0 is outside its range: choose a value in \[0, 1\)\."),
    ("--epochs two", r"--epochs: invalid literal for int\(\) with base 10: 'two'"),
    ("--epochs", r"Missing value for argument '--epochs'"),
    ("--pool.exponent soft", r"invalid choice 'soft' for argument '--pool.exponent'"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_command_line_is_explained(line, message):
    with pytest.raises(UsageError, match=message):
        parse_args(line.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pooler learned_norm --pool.p-init 0.5", r"bigru with learned_norm: .*p_init"),
        ("--pool.heads 3", r"bigru with log_learned_norm: .*heads"),
        ("--pool.heads 2 --pool.per head --pool.score none", r"bigru with log_learned_norm: .*per head needs"),
    ],
)
def test_options_that_do_not_fit_together(options, message, tmp_path, capsys):
    line = f"--task toy --out {tmp_path / 'run'} {options}".split()
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=message):
        main([*line, "--debug"])


def test_the_real_command_line_shows_no_traceback():
    finished = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--pooler", "mena"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == "experiments.train: unknown pooler 'mena': did you mean 'mean'?\n"


@pytest.mark.parametrize("package", ["tyro", "matplotlib"])
def test_a_missing_package_is_one_line(package, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    finished = subprocess.run(
        [sys.executable, "-m", "experiments.train"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert finished.returncode == 2
    assert finished.stderr == f'experiments needs {package}: python -m pip install -e ".[experiments]"\n'


def option_groups() -> list[type]:
    owned = [part.Options for table in (TASKS, ENCODERS, POOLERS) for part in table.values()]
    return [Config, type(default_config().optim), type(default_config().save), HeadOptions, *dict.fromkeys(owned)]


@pytest.mark.parametrize("group", option_groups(), ids=lambda group: group.__name__)
def test_every_field_has_a_help_text_and_every_number_a_range(group):
    body = ast.parse(textwrap.dedent(inspect.getsource(group))).body[0].body
    hints = get_type_hints(group, include_extras=True)
    groups = ("data", "encode", "pool", "head", "optim", "save", "devices")
    for field, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or field.target.id in groups:
            continue
        assert isinstance(following, ast.Expr), f"{field.target.id} has no help text"
        hint = hints[field.target.id]
        marks = getattr(hint, "__metadata__", ())
        assert any(isinstance(mark, Interval) for mark in marks) == (getattr(hint, "__origin__", hint) in (int, float))


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(["--pooler", "attention", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for path, _, _ in leaves(default_config(pooler="attention")):
        assert flag(path) in text


def test_the_command_line_reaches_every_group():
    config = parse_args(["--pool.p-init", "3", "--optim.p-multiplier=0", "--data.max-len", "9"])
    assert (config.pool.p_init, config.optim.p_multiplier, config.data.max_len) == (3.0, 0.0, 9)
    assert parse_args([]) == default_config()


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_the_defaults_of_every_choice_are_allowed_and_those_that_its_parts_suggest(encoder, task):
    config = default_config(task, encoder)
    validate(config)
    assert from_dict(config, existing(config, getattr(config.encode, "suggests", {}))) == config
    if not hasattr(config.encode, "suggests"):
        assert from_dict(config, getattr(config.data, "suggests", {})) == config


def suggesting(part, suggestions):
    """Return a part like another, whose options suggest something else."""
    options = dataclasses.make_dataclass("Options", [], bases=(part.Options,), frozen=True)
    options.suggests = suggestions
    return type("Part", (part,), {"Options": options})


def test_the_later_part_of_the_figure_wins_and_what_is_given_wins_over_every_suggestion(monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "wordnet", suggesting(TASKS["wordnet"], {"epochs": 7, "head": {"dropout": 0.7}}))
    monkeypatch.setitem(ENCODERS, "gru", suggesting(ENCODERS["gru"], {"head": {"dropout": 0.6}, "optim": {"clip": 6}}))
    monkeypatch.setitem(POOLERS, "mean", suggesting(POOLERS["mean"], {"optim": {"clip": 5}}))
    config = parse_args(["--encoder", "gru", "--pooler", "mean"])
    assert (config.epochs, config.head.dropout, config.optim.clip) == (7, 0.6, 5.0)
    assert parse_args([]) == dataclasses.replace(default_config(), epochs=7, head=HeadOptions(0.7))
    with pytest.raises(SystemExit):
        parse_args(["--encoder", "gru", "--pooler", "mean", "--help"])
    assert re.search(r"--head.dropout [^-]*default: 0\.6", capsys.readouterr().out)
    given = parse_args(["--encoder", "gru", "--pooler", "mean", "--head.dropout", "0.2", "--epochs", "3"])
    assert (given.epochs, given.head.dropout, given.optim.clip) == (3, 0.2, 5.0)
    assert from_json(to_json(given)) == given
    assert parse_args(command_line(given)) == given


def test_a_suggestion_for_an_option_that_another_objective_lacks_is_passed_over(monkeypatch):
    suggestions = {"epochs": 5, "head": {"smoothing": 0.1}, "margin": {"scale": 2}}
    monkeypatch.setitem(ENCODERS, "gru", suggesting(ENCODERS["gru"], suggestions))
    assert default_config(encoder="gru").epochs == 5


@pytest.mark.parametrize("kind", ["task", "encoder", "pooler"])
def test_every_suggestion_is_for_an_option_that_exists_and_differs_from_its_own_default(kind):
    table = {"task": TASKS, "encoder": ENCODERS, "pooler": POOLERS}[kind]
    for name, part in table.items():
        if suggestions := getattr(part.Options, "suggests", None):
            config = default_config(**{kind: name})
            assert from_dict(config, suggestions) == config
            assert any(
                from_dict(default_config(), {key: value}) != default_config() for key, value in suggestions.items()
            )


def test_a_complete_configuration_is_not_changed_by_suggestions(monkeypatch):
    config = default_config(encoder="gru", pooler="mean")
    before = to_json(config)
    monkeypatch.setitem(ENCODERS, "gru", suggesting(ENCODERS["gru"], {"epochs": 9, "head": {"dropout": 0.6}}))
    assert default_config(encoder="gru", pooler="mean").epochs == 9
    assert to_json(from_json(before)) == before


@pytest.mark.parametrize("pooler", sorted(POOLERS))
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_json_returns_the_same_value(encoder, pooler, tmp_path):
    config = parse_args(["--encoder", encoder, "--pooler", pooler, "--seed", "7", "--out", str(tmp_path), "--debug"])
    assert from_json(to_json(config)) == config


BAD_JSON = [
    ({"epoch": 3}, r"unknown configuration key 'epoch': did you mean 'epochs'\?"),
    ({"pool": {"p_ini": 3.0}}, r"unknown configuration key 'pool.p_ini': did you mean 'pool.p_init'\?"),
    ({"pooler": "median"}, r"unknown pooler 'median'"),
    ({"pooler": ["mean"]}, r"unknown pooler"),
    (3, r"the configuration must hold a JSON object, found int\."),
    ({"epochs": "3"}, r"configuration key 'epochs' must be int, got '3'\."),
    ({"epochs": True}, r"configuration key 'epochs' must be int, got True\."),
    ({"optim": 3}, r"optim must be a JSON object, got int\."),
    ({"optim": {"clip": 0}}, r"--optim.clip 0.0 is outside its range"),
    ({"pool": {"exponent": "rawer"}}, r"unknown value of pool.exponent 'rawer': did you mean 'raw'\?"),
]


@pytest.mark.parametrize(("values", "message"), BAD_JSON)
def test_json_is_strict(values, message):
    with pytest.raises(UsageError, match=message):
        from_json(json.dumps(values))


def test_text_that_is_not_json():
    with pytest.raises(UsageError, match="the configuration is not JSON"):
        from_json("{")


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [("(0, 1]", (0.1, 1), (0, 1.1, -1, float("nan"))), ("[0, 1)", (0, 0.9), (1, -0.1, float("inf")))],
)
def test_intervals(interval, inside, outside):
    assert all(value in Interval(interval) for value in inside)
    assert not any(value in Interval(interval) for value in outside)
