"""The example that probes a module of one's own."""

import pytest

import own_module


def test_prints_a_falling_curve_and_the_verdicts(capsys: pytest.CaptureFixture[str]):
    own_module.main()
    printed = capsys.readouterr().out
    curve = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("step")]
    assert curve == sorted(curve, reverse=True)
    assert "judged for float32" in printed
    assert "underflow" in printed
