"""The output that the examples' README shows is what they print."""

from pathlib import Path

import pytest

import numpy_lstm
import own_module
import question_answering

README = Path(numpy_lstm.__file__).with_name("README.md")


def test_every_line_shown_is_printed(capsys: pytest.CaptureFixture[str]):
    for module in (numpy_lstm, question_answering, own_module):
        module.main()
    printed = capsys.readouterr().out.splitlines()
    blocks = README.read_text(encoding="utf-8").split("```")[1::2]
    shown = [line for block in blocks for line in block.strip("\n").splitlines()]
    assert len(blocks) == 3
    assert [line for line in shown if line not in printed] == []
    # and what it only speaks of: every question, and the diagnosis of a layer
    assert {f"{q}? {a}" for q, a in question_answering.QUESTIONS.items()} <= {*printed}
    assert any("judged for torch.float32" in line for line in printed)
