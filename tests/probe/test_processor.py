"""What the processor tells, and what the size of a part of the batch becomes of it."""

from pathlib import Path

import pytest
import torch
from probe_problems import FEATURES
from torch import nn

from rnngrad.probe import processor, sharing
from rnngrad.probe.problem import problem_of
from rnngrad.probe.sharing import schedules

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("content", "expected"),
    [("32768K\n", 32 * MEBIBYTE), ("491520K\n", 480 * MEBIBYTE), ("32M\n", 0), ("", 0), (None, 0)],
)
def test_last_cache(
    content: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is as good as a file that nobody can read."""
    size = tmp_path / "size"
    if content is not None:
        size.write_text(content)
    monkeypatch.setattr(processor, "LAST_CACHE", size)
    assert processor.last_cache_bytes() == expected


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ("processor : 0\nvendor_id : GenuineIntel\n", "", True),
        ("processor : 0\nvendor_id : AuthenticAMD\n", "GenuineIntel", False),
        (None, "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", True),
        (None, "arm", False),
    ],
)
def test_is_intel(
    content: str | None,
    name: str,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Where Linux has no file the name that Python knows counts."""
    processors = tmp_path / "cpuinfo"
    if content is not None:
        processors.write_text(content)
    monkeypatch.setattr(processor, "PROCESSORS", processors)
    monkeypatch.setattr("platform.processor", lambda: name)
    assert processor.is_intel() == expected


@pytest.mark.parametrize(
    ("cache", "threads", "expected"),
    [(0, 4, 8), (32, 4, 8), (64, 4, 16), (480, 1, 24), (480, 2, 48), (480, 64, 120)],
)
def test_parts_fit_the_cache_and_keep_all_threads_busy(
    cache: int, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    """Of 100 examples of 1 MiB; no part is a rest of a few."""
    monkeypatch.setattr(sharing, "last_cache_bytes", lambda: cache * MEBIBYTE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    problem = problem_of(nn.RNN(FEATURES, 3, batch_first=True), torch.randn(100, 2, FEATURES))
    parts = list(schedules(problem, MEBIBYTE, 2 * MEBIBYTE, share=False))
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(100))
    sizes = [len(part.rows) for part in parts]
    assert len(sizes) == -(-100 // expected)
    assert max(sizes) - min(sizes) <= 1
