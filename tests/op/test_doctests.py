"""The examples in the docstrings of every module of the library print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import lnpool

MODULES = ["lnpool", *(module.name for module in pkgutil.walk_packages(lnpool.__path__, "lnpool."))]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_every_public_function_has_an_example():
    public = [getattr(lnpool, name) for name in lnpool.__all__ if callable(getattr(lnpool, name))]
    modules = [
        importlib.import_module("lnpool.nn").LearnedNormPool,
        importlib.import_module("lnpool.nn").AttentionScores,
    ]
    for thing in (*public, *modules, lnpool.exponent.bounded):
        assert ">>>" in thing.__doc__, thing
