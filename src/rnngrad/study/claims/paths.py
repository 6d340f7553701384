"""Verdicts on products along paths: powers of the RNN's kernel, and paths that might cancel."""

from typing import NamedTuple, cast

import pandas as pd

from rnngrad.study.claims.claim import GATES_AND_PATHS, Claim, verdict
from rnngrad.study.claims.seeds import in_words, over_seeds

CLOSE, CLOSE_SHARE = 0.005, 0.1  # decades per step, or of the measured rate
LINEAR = 0.95  # mean slope of tanh
CANCELLED = 0.1  # decades

POWERS = (
    "holds: log10 of the spectral radius of W_hh is within 0.005 decades per step, or within 10%, "
    "of the rate that is measured, for untrained, trained and scaled kernels, on padding and on "
    "words (mean distance over seeds). Holds only if the tanh is linear (mean slope of 0.95 or "
    "more): there is such a case, and in each of them it is so. Does not hold: otherwise."
)
ONE_PATH = (
    "holds: at no step is the norm of dc_t/dc_0 more than 0.1 decades below the larger of those of "
    "its cell path and its hidden paths, untrained and trained, on padding and on words, for any "
    "seed: they do not cancel, and the gradient is there where one of them is; and one of them "
    "does not vanish (0 decades per step or more, mean over seeds). Holds only if there is such a "
    "path: they do not cancel, but every path vanishes; or if the weights and inputs are those "
    "named: they cancel in the others. Does not hold: they cancel in all of these cases."
)


def judge_powers(powers: pd.DataFrame) -> Claim | None:
    """Claim 6: is the RNN's gradient governed by powers of W?

    Args:
        powers: cell, seed, weights, and the columns of ``recurrent_powers``.

    Returns:
        None without rates.
    """
    known = powers.dropna(subset=["measured"])
    if known.empty:
        return None
    known = known.assign(off=known["measured"] - known["predicted"])
    means = (
        known.assign(distance=known["off"].abs(), size=known["measured"].abs())
        .drop(columns=["cell", "seed"])
        .groupby(["weights", "input"], sort=False)
        .mean()
    )
    close = (means["distance"] <= CLOSE) | (means["distance"] <= CLOSE_SHARE * means["size"])
    linear = means["tanh_slope"] >= LINEAR
    worst = known.set_index(["weights", "input"]).loc[[means["distance"].idxmax()]]
    return Claim(
        id=6,
        statement=(
            "The RNN's gradient is governed by powers of W: it explodes or vanishes, on either "
            "side of a spectral radius of 1."
        ),
        source=GATES_AND_PATHS,
        criterion=POWERS,
        measured=_powers_measured(known),
        interval=over_seeds(worst.set_index("seed")["off"]),
        verdict=verdict(
            holds=bool(close.all()),
            sometimes=bool(linear.any()) and bool(close[linear].all()),
        ),
    )


def _powers_measured(known: pd.DataFrame) -> str:
    parts = []
    for weights, group in known.groupby("weights", sort=False):
        name = f"scaled to {weights}" if str(weights).startswith("radius") else _in_words(weights)
        means = group[["predicted", "spectral_radius", "largest_singular_value"]].mean()
        rates = []
        for kind, each in group.groupby("input", sort=False):
            measured = over_seeds(each.set_index("seed")["measured"])
            slope, move = each[["tanh_slope", "last_move"]].mean()
            rate = f"{in_words(measured, '+z.4f', f'on {kind}')}, tanh' = {slope:.2f}"
            in_the_end = f", in the end a unit moves by up to {move:.2f} a step"
            rates.append(rate + (in_the_end if kind == "padding" else ""))
        parts.append(
            f"{name} (spectral radius {means['spectral_radius']:.2f}, largest singular value "
            f"{means['largest_singular_value']:.2f}) {means['predicted']:+z.4f} predicted, "
            f"measured {' and '.join(rates)}"
        )
    return f"In decades per step: {'; '.join(parts)}."


def judge_one_path(paths: pd.DataFrame) -> Claim | None:
    """Claim 10: is one path enough along which the gradient does not vanish, or do paths cancel?

    Args:
        paths: cell, seed, weights, and the columns of ``path_rates``.

    Returns:
        None without paths, or without a rate of any of them (of one step, say).
    """
    if paths.empty or paths[["cell_path", "hidden_path"]].isna().all(axis=None):
        return None
    lost = paths.groupby(["weights", "input"], sort=False)["below_largest_path"].max()
    together = lost <= CANCELLED
    names = [
        f"{_in_words(weights)} on {kind}"
        for (weights, kind), so in together.items()  # pyright: ignore[reportGeneralTypeIssues]
        if so
    ]
    worst = paths.set_index(["weights", "input"]).loc[[lost.idxmax()]].set_index("seed")
    slowest = _slowest(paths)
    return Claim(
        id=10,
        statement="One path along which the gradient does not vanish is enough.",
        source=GATES_AND_PATHS,
        criterion=ONE_PATH,
        measured=(
            f"The gradient lies at most {lost.max():.3f} decades below the larger of its two parts "
            f"(within 0.1: {', '.join(names) or 'nowhere'}); the least decay is that of "
            f"{slowest.path} {_in_words(slowest.weights)} on {slowest.input}, "
            f"{slowest.rate:+.4f} decades per step, so "
            f"{'every path vanishes here' if slowest.rate < 0 else 'that one does not vanish'}."
        ),
        interval=over_seeds(worst["below_largest_path"]),
        verdict=verdict(
            holds=bool(together.all()) and slowest.rate >= 0, sometimes=bool(together.any())
        ),
    )


class _Slowest(NamedTuple):
    """Which path vanishes least, and at what rate (decades per step, mean over seeds)."""

    path: str
    weights: str
    input: str
    rate: float


def _slowest(paths: pd.DataFrame) -> _Slowest:
    names = {"cell_path": "the cell path", "hidden_path": "the hidden paths"}
    rates = paths.melt(["weights", "input"], list(names), "path", "rate")
    means = rates.groupby(["path", "weights", "input"])["rate"].mean()
    path, weights, kind = cast("tuple[str, str, str]", means.idxmax())
    return _Slowest(names[path], weights, kind, float(means.max()))


def _in_words(weights: object) -> str:
    return "untrained" if weights == "init" else str(weights)
