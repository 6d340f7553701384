"""Why is it zero? The table of conditions, and what each cause has to do with the answer."""

import numpy as np
import pandas as pd

from rnngrad.report.style import FLOAT32_NORMAL, NAMES
from rnngrad.report.tables import code

# What a reader is told of a cause; the numbers come from the table of conditions.
CAUSES = {
    "float32_flushed": "float32 with flush-to-zero ends at 10^-37.9",
    "no_padding": "nearly all steps are padding",
    "torch_initializer": "the initialiser: orthogonal, forget bias 1",
    "trained": "nothing was trained",
    "zero_state": "the state starts at U(0, 1), not at 0",
    "frobenius": "signs cancel in a column sum",
    "averaging_bug": "the mean was taken over as many zeros again",
    "emptied_comments": "comments of three words or fewer were emptied",
    "sliced_input": "the wrapper sliced its input",
}


def why_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """The table of conditions as it is printed: one row per condition and cell."""
    rows = [
        {
            "condition": code(row["condition"]),
            "cell": NAMES[row["cell"]],
            "examples": f"{row['examples']:.0f}",
            **{f"t = {t:,}": decades(row[f"log10_at_{t}"]) for t in (20, 100, 400, 1383)},
            "end": decades(row["log10_at_end"]),
            "zero from": _step(row["float32_zero_from"]),
            "per padding step": _rate(row["decades_per_step_padding"]),
            "per word": _rate(row["decades_per_step_tokens"]),
            "horizon": _step(row["horizon"]),
        }
        for row in conditions.to_dict("records")
    ]
    return pd.DataFrame(rows)


def decades(value: float, digits: int = 1) -> str:
    """A log10 as it is printed; empty where there is none."""
    if np.isnan(value):
        return ""
    return "exactly 0" if value == -np.inf else f"{value:z.{digits}f}".replace("-", "−")


def _rate(value: float) -> str:
    return "" if np.isnan(value) else f"{value:z.3f}".replace("-", "−")


def _step(value: float) -> str:
    return "never" if np.isnan(value) else f"{value:,.0f}"


def value_of(conditions: pd.DataFrame, condition: str, cell: str, column: str) -> float | None:
    """One number of the table; None where the condition was not run for the cell."""
    found = conditions.query("condition == @condition and cell == @cell")[column]
    return None if found.empty else float(found.iloc[0])


def falls_below_float32(conditions: pd.DataFrame, condition: str) -> bool:
    """Does a cell's value end below the smallest normal float32?"""
    ends = conditions.loc[conditions["condition"] == condition, "log10_at_end"]
    return bool((ends < FLOAT32_NORMAL).any())


def cause_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """The change of both cells' ends when one factor is changed, the largest effect first.

    Columns: cause, condition; rnn and lstm: log10 at the end; rnn_change, lstm_change: against the
    question's setting; lead_change: of the decades by which the RNN is ahead. Of an exact zero the
    change is what the arithmetic hides: the decades from the smallest normal float32 to the truth.
    NaN where a cell was not run under the condition. Empty where the question's setting was not run
    for both cells.
    """
    ends = conditions.pivot_table("log10_at_end", "condition", "cell")
    if not {"rnn", "lstm"} <= set(ends) or "question" not in ends.index:
        return pd.DataFrame()
    question = ends.loc["question", ["rnn", "lstm"]]
    rows = []
    for condition, cause in CAUSES.items():
        end = ends.reindex([condition])[["rnn", "lstm"]].iloc[0]
        if end.notna().any():
            change = (end - question).mask(np.isneginf(end), question - FLOAT32_NORMAL)
            lead = change["rnn"] - change["lstm"]
            names = {"cause": cause, "condition": condition, **end.to_dict()}
            rows.append(
                names
                | {f"{cell}_change": change[cell] for cell in change.index}
                | {"lead_change": lead}
            )
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    size = table[["lead_change", "lstm_change"]].abs()
    return table.loc[
        size.sort_values(["lead_change", "lstm_change"], ascending=False).index
    ].reset_index(drop=True)


def lead(conditions: pd.DataFrame) -> str:
    """Decades by which the RNN is ahead at the end of the question's setting; empty if not run."""
    rnn, lstm = (value_of(conditions, "question", cell, "log10_at_end") for cell in ("rnn", "lstm"))
    return "" if rnn is None or lstm is None else decades(rnn - lstm)


def printed_causes(conditions: pd.DataFrame) -> pd.DataFrame:
    """``cause_table`` as it is printed."""
    causes = cause_table(conditions)
    if causes.empty:
        return causes
    return pd.DataFrame(
        {
            "cause": causes["cause"],
            "condition": causes["condition"].map(code),
            "RNN ends at": causes["rnn"].map(decades),
            "LSTM ends at": causes["lstm"].map(decades),
            "RNN moves by": causes["rnn_change"].map(_signed),
            "LSTM moves by": causes["lstm_change"].map(_signed),
            "lead moves by": causes["lead_change"].map(_signed),
        }
    )


def _signed(value: float) -> str:
    if np.isnan(value):
        return ""
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def horizon_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """Memory horizon per cell: steps until a tenth of the statistic is left, by condition."""
    wanted = ["question", "zero_state", "no_padding", "torch_initializer", "chrono", "trained"]
    rows: dict[str, dict[str, str]] = {}
    for row in conditions.to_dict("records"):
        name = row["condition"]
        if name in wanted:
            rows.setdefault(name, {})[NAMES[row["cell"]]] = _step(row["horizon"])
    table = pd.DataFrame(
        [{"condition": code(name)} | rows[name] for name in wanted if name in rows]
    )
    return table.fillna("")
