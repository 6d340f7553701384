"""The table that a person reads when a diagnosis is printed."""

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from rnngrad.probe.diagnosis import Diagnosis

MEANINGS = {
    "structural": "exactly zero, whatever the arithmetic",
    "saturated": "gate derivatives round to exactly 0 in {dtype}",
    "underflow": "too small for {dtype}: 0 if flushed, else down to a plateau near {smallest:.1e}",
    "decayed": "below 1e-7 of the start, still a normal number",
    "exploding": "above 1e+7 of the start, or overflow",
    "alive": "within 1e-7 .. 1e+7 of the start",
}
HEADER = ("verdict", "first at step", "of all steps", "log10 |J| there", "meaning")


def table(diagnosis: "Diagnosis") -> str:
    """Verdicts in the order in which they appear, then rate, horizon and what autograd returns."""
    found = [name for name in MEANINGS if (diagnosis.verdict == name).any()]
    found.sort(key=lambda name: float(np.nanmin(diagnosis.first_steps(name))))
    rows = [HEADER, *(_row(diagnosis, name) for name in found)]
    return "\n".join((diagnosis.title, "", *_aligned(rows), "", *_summary(diagnosis)))


def _row(diagnosis: "Diagnosis", name: str) -> tuple[str, ...]:
    first = diagnosis.first_steps(name)
    b = np.flatnonzero(~np.isnan(first))
    there = diagnosis.log10_frobenius[b, first[b].astype(int) - 1]
    share = (diagnosis.verdict == name).sum() / (diagnosis.verdict != "").sum()
    limits = torch.finfo(diagnosis.dtype)
    smallest = limits.smallest_normal * limits.eps
    meaning = MEANINGS[name].format(dtype=short(diagnosis.dtype), smallest=smallest)
    return name, _range(first, "{:.0f}"), f"{share:.0%}", _range(there, "{:+.1f}"), meaning


def _summary(diagnosis: "Diagnosis") -> list[str]:
    real = diagnosis.verdict != ""
    last = real.sum(axis=1) - 1
    at_end = np.arange(len(last)), last
    zero = first_step((diagnosis.naive_flushed == 0) & real)
    flushed = "never 0" if np.isnan(zero).all() else f"0 from step {_range(zero, '{:.0f}')}"
    rows = [
        ("rate", f"{_range(diagnosis.decades_per_step, '{:+.4f}')} decades per step"),
        ("memory horizon", f"{_horizon(diagnosis.horizon)}; the norm falls to 1/10 of its start"),
        ("at the end", f"true log10 |J| = {_range(diagnosis.log10_frobenius[at_end], '{:+.1f}')}"),
        (
            f"naive {short(diagnosis.dtype)}",
            f"flush-to-zero: {flushed}; gradual underflow: "
            f"{_at_end(diagnosis.naive[at_end])} at the end",
        ),
    ]
    return _aligned(rows)


def _at_end(naive: np.ndarray) -> str:
    nan = int(np.isnan(naive).sum())
    if nan == len(naive):
        return "NaN"
    return _range(naive, "{:.2g}") + (f" ({nan} of {len(naive)} examples: NaN)" if nan else "")


def _horizon(horizon: np.ndarray) -> str:
    never = int(np.isnan(horizon).sum())
    if never == len(horizon):
        return "never within these steps"
    some = f" ({never} of {len(horizon)} examples: never)" if never else ""
    return f"step {_range(horizon, '{:.0f}')}{some}"


def first_step(mask: np.ndarray) -> np.ndarray:
    """(batch,) the first step (from 1) at which the mask holds, NaN if none."""
    return np.where(mask.any(axis=1), mask.argmax(axis=1) + 1.0, np.nan)


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _range(values: np.ndarray, form: str) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    low, high = form.format(known.min()), form.format(known.max())
    return low if low == high else f"{low} .. {high}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
