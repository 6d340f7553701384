"""The curves of the study to play with: one HTML file with plotly inside, which opens offline."""

import json
from typing import Any

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from rnngrad.report.style import COLOURS, FLOAT32_DENORMAL, FLOAT32_NORMAL, NAMES, THIN
from rnngrad.report.words import NAMED, environment
from rnngrad.study.results import Results

ALL_STEPS = 100  # of the first so many steps every one is shown, later on one in THIN


def explore_page(results: Results) -> str:
    """The page: conditions, models and triangles, each with what to choose from above it.

    Numbers are log10 with three digits after the point; null where nothing is left of a gradient.
    """
    conditions = results.condition_curves
    named = conditions.groupby("condition", sort=False)["cell"]
    data = {
        "conditions": _curves(conditions, ["condition", "cell"], "log10"),
        "models": _curves(results.curves, ["cell", "weights", "statistic", "seed"], "log10_median"),
        "triangles": {
            f"{cell} {weights}": _rounded(triangle)
            for (cell, weights), triangle in results.triangles.items()
        },
        "names": {str(name): str(name).replace("_", " ") for name in named.groups} | NAMED,
        "cells": {cell: [NAMES[cell], COLOURS[cell]] for cell in results.cells},
        "float32": [FLOAT32_DENORMAL, FLOAT32_NORMAL],
    }
    page = environment().get_template("explore.html.j2")
    return page.render(plotly=get_plotlyjs(), data=json.dumps(data).replace("</", "<\\/"))


def _curves(table: pd.DataFrame, keys: list[str], value: str) -> dict[str, dict[str, Any]]:
    """Steps and values by the keys with spaces between them."""
    steps = table["step"]
    last = table.groupby(keys)["step"].transform("max")
    shown = table[(steps <= ALL_STEPS) | (steps % THIN == 0) | (steps == last)]
    return {
        " ".join(map(str, key if isinstance(key, tuple) else (key,))): {
            "x": rows["step"].tolist(),
            "y": _rounded(rows[value].to_numpy()),
        }
        for key, rows in shown.groupby(keys, sort=False)
    }


def _rounded(values: np.ndarray) -> list[Any]:
    """Nested lists, since JSON has no NaN and no infinity."""
    rounded = np.round(values.astype(float), 3)
    rounded = rounded.astype(object)
    rounded[~np.isfinite(values.astype(float))] = None
    return rounded.tolist()
