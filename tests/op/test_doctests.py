"""The examples in the docstrings of every module of the library print what they say; the version has one source."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import lnpool

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = ["lnpool", *(module.name for module in pkgutil.walk_packages(lnpool.__path__, "lnpool."))]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_function_has_an_example():
    public = [thing for name, thing in vars(lnpool).items() if callable(thing) and not name.startswith("_")]
    assert lnpool.pool in public
    modules = importlib.import_module("lnpool.nn")
    for thing in (*public, modules.LearnedNormPool, modules.AttentionScores, lnpool.exponent.bounded):
        assert ">>>" in thing.__doc__, thing


def test_the_version_has_one_source():
    """The metadata of the package are made from the attribute."""
    assert 'version = { attr = "lnpool.__version__" }' in (ROOT / "pyproject.toml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", lnpool.__version__)
