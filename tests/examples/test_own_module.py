"""The example that probes a model of one's own."""

import pytest

import own_module


def test_prints_what_the_layers_learn_from_and_the_verdicts(capsys: pytest.CaptureFixture[str]):
    own_module.main()
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.startswith("encoder.")]
    assert [row[0] for row in rows] == ["encoder.0", "encoder.1"]
    assert all(int(row[-1]) < 30 for row in rows)
    assert all("underflow" in row for row in rows)
    assert "judged for float32" in printed
