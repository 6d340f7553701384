"""A curve as text, for a terminal."""

import math
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch


def text_plot(
    log10: np.ndarray, dtype: torch.dtype, width: int = 68, height: int = 14
) -> Iterator[str]:
    """The median of the examples in braille dots, or in asterisks where the terminal has none."""
    limit = math.log10(torch.finfo(dtype).smallest_normal)
    steps = np.flatnonzero(~np.isnan(log10).all(axis=0))
    middle = np.nanquantile(log10[:, steps], 0.5, axis=0, method="nearest")
    if not np.isfinite(middle).any():
        return
    low, high = math.floor(middle[np.isfinite(middle)].min()), math.ceil(middle.max())
    dots = np.zeros((4 * height, 2 * width), dtype=bool)
    rows = (high - np.array([*middle, limit])) / max(high - low, 1) * (len(dots) - 1)
    notes: dict[int, str] = {}
    if low < limit < high:
        dots[round(rows[-1]), ::3] = True
        notes[round(rows[-1]) // 4] = f"{dtype} ends".removeprefix("torch.")
    cuts = np.linspace(0, len(middle) - 1, 2 * width + 1).round().astype(int)
    for x, (first, last) in enumerate(pairwise(cuts)):
        some = rows[first : last + 1]
        some = some[np.isfinite(some)].round().astype(int)
        if len(some):
            dots[some.min() : some.max() + 1, x] = True
    bits = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])[:, None]
    cells = (dots.reshape(height, 4, width, 2) * bits).sum(axis=(1, 3))
    braille = "utf" in (sys.stdout.encoding or "").lower()
    yield "log10 |J| at every step, median of the examples"
    for y, row in enumerate(cells):
        mark = f"{high:+d}" if y == 0 else f"{low:+d}" if y == height - 1 else ""
        line = "".join(" " if not c else chr(0x2800 + c) if braille else "*" for c in row)
        yield f"{mark:>5} |{line} {notes.get(y, '')}".rstrip()
    yield f"{'step':>5}  1{len(middle):>{width - 1}}"
