"""The examples in the docstrings run, and show what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "cells",
    "curves",
    "diagnosis",
    "loss_gradients",
    "lyapunov",
    "step",
    "trajectory",
    "weight_gradients",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    result = doctest.testmod(import_module(f"rnngrad.probe.{name}"))
    assert result.attempted > 1
    assert result.failed == 0
