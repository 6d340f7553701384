"""The examples in the docstrings run, and show what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "errors",
    "lightning",
    "plot",
    "probe.cells",
    "probe.curves",
    "probe.diagnosis",
    "probe.loss_gradients",
    "probe.lyapunov",
    "probe.step",
    "probe.trajectory",
    "probe.weight_gradients",
    "whole_model",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    result = doctest.testmod(import_module(f"rnngrad.{name}"))
    assert result.attempted > 1
    assert result.failed == 0
