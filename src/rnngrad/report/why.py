"""Why is it zero? The table of conditions, and what each cause has to do with the answer."""

import numpy as np
import pandas as pd

from rnngrad.report.style import NAMES

# What a person who reads the page is told of a cause; the numbers come from the table.
CAUSES = {
    "no_padding": "nearly all of the steps are padding",
    "torch_initializer": "the initialiser makes the RNN's matrix orthogonal",
    "trained": "nothing was trained",
    "zero_state": "the state starts at U(0, 1)",
    "forget_bias_0": "the forget gates start at a bias of 1",
    "frobenius": "signs cancel in a column sum",
    "averaging_bug": "half of the mean was taken over zeros",
    "emptied_comments": "comments of three words or fewer were emptied",
    "sliced_input": "the wrapper sliced its input",
}


def why_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """The table of conditions as it is printed: one row per condition and cell."""
    rows = []
    for row in conditions.to_dict("records"):
        rows.append(
            {
                "condition": f"`{row['condition']}`",
                "factor": row["factor"],
                "cell": NAMES[row["cell"]],
                **{f"t = {t:,}": _decades(row[f"log10_at_{t}"]) for t in (20, 100, 400, 1383)},
                "end": _decades(row["log10_at_end"]),
                "float32 zero from": _step(row["float32_zero_from"]),
                "per step of padding": _rate(row["decades_per_step_padding"]),
                "per word": _rate(row["decades_per_step_tokens"]),
                "horizon": _step(row["horizon"]),
            }
        )
    return pd.DataFrame(rows)


def _decades(value: float) -> str:
    if np.isnan(value):
        return ""
    return "0 exactly" if value == -np.inf else f"{value:z.1f}".replace("-", "−")


def _rate(value: float) -> str:
    return "" if np.isnan(value) else f"{value:z.3f}".replace("-", "−")


def _step(value: float) -> str:
    return "never" if np.isnan(value) else f"{value:,.0f}"


def value_of(conditions: pd.DataFrame, condition: str, cell: str, column: str) -> float | None:
    """One number of the table; None where the condition was not run for the cell."""
    found = conditions.query("condition == @condition and cell == @cell")[column]
    return None if found.empty else float(found.iloc[0])


def cause_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """What becomes of the two ends when one cause is taken away, largest effect first.

    Columns: cause, condition, rnn, lstm (log10 at the end), lead (decades by which the RNN is
    ahead), change (of that lead against the question's setting); empty where RNN or LSTM was not
    run. Only the RNN's or only the LSTM's end may change: the other is then the question's.
    """
    start = {cell: value_of(conditions, "question", cell, "log10_at_end") for cell in NAMES}
    if start["rnn"] is None or start["lstm"] is None:
        return pd.DataFrame()
    rows = []
    for condition, cause in CAUSES.items():
        ends = {cell: value_of(conditions, condition, cell, "log10_at_end") for cell in NAMES}
        if ends["rnn"] is None and ends["lstm"] is None:
            continue
        rnn = start["rnn"] if ends["rnn"] is None else ends["rnn"]
        lstm = start["lstm"] if ends["lstm"] is None else ends["lstm"]
        change = rnn - lstm - (start["rnn"] - start["lstm"])
        rows.append(
            {
                "cause": cause,
                "condition": condition,
                "rnn": rnn,
                "lstm": lstm,
                "lead": rnn - lstm,
                "change": change,
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("change", key=np.abs, ascending=False, ignore_index=True)


def printed_causes(conditions: pd.DataFrame) -> pd.DataFrame:
    """``cause_table`` in words, with the share of all changes that each cause has."""
    causes = cause_table(conditions)
    if causes.empty:
        return causes
    return pd.DataFrame(
        {
            "cause": causes["cause"],
            "taken away by": [f"`{name}`" for name in causes["condition"]],
            "RNN ends at": causes["rnn"].map(_decades),
            "LSTM ends at": causes["lstm"].map(_decades),
            "the RNN's lead": causes["lead"].map(_decades),
            "changes the lead by": causes["change"].map(_decades),
        }
    )
