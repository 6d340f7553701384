"""From curves to the tables of conditions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnngrad.params import Setting
from rnngrad.study.condition_tables import curve_numbers, curves_over_seeds, over_seeds

TRUE = Setting.model_construct(arithmetic="log", halved_mean=False)


def test_rates_and_horizon_of_a_straight_line() -> None:
    steps = np.arange(1, 101)
    # 0.02 decades per step on 60 steps of padding, 0.1 on 40 words
    line = np.where(steps <= 60, -0.02 * steps, -1.2 - 0.1 * (steps - 60))[None]
    curve, numbers = curve_numbers(line, [range(60, 100)], 0.0, TRUE)
    assert numbers["decades_per_step_padding"] == pytest.approx(-0.02)
    assert numbers["decades_per_step_tokens"] == pytest.approx(-0.1)
    assert numbers["horizon"] == 50
    assert numbers["log10_at_20"] == pytest.approx(-0.4)
    assert numbers["log10_at_end"] == pytest.approx(-5.2)
    assert np.isnan(numbers["log10_at_400"])
    sparse = np.where(np.isin(steps, (1, 20, 40, 60, 80, 100)), line, np.nan)
    assert len(curve) == 100
    _, coarse = curve_numbers(sparse, [range(60, 100)], 0.0, TRUE)
    assert coarse == pytest.approx(numbers, nan_ok=True)


def test_a_horizon_between_recorded_steps_is_the_first_one_beyond_a_tenth() -> None:
    log10 = np.full((1, 10), np.nan)
    log10[0, [0, 3, 9]] = -0.1, -0.4, -1.6  # a tenth is left at step 7.0, or a little later
    for moved, horizon in ((0.0, 7), (0.01, 8), (-0.01, 7)):
        _, numbers = curve_numbers(log10 + moved, [range(10)], 0.0, TRUE)
        assert numbers["horizon"] == horizon


def test_a_halved_mean_has_the_horizon_of_the_whole_one() -> None:
    log10 = -0.11 * np.arange(1, 21)[None]
    readings = TRUE, Setting.model_construct(arithmetic="log", halved_mean=True)
    whole, half = (curve_numbers(log10, [range(10)], 0.0, each)[1] for each in readings)
    assert whole["horizon"] == half["horizon"] == 10


def test_rates_stop_where_the_arithmetic_ends() -> None:
    line = np.maximum(-1.0 * np.arange(1, 101), -45.0)[None]
    reading = Setting.model_construct(arithmetic="float32", halved_mean=True)
    _, numbers = curve_numbers(line, [range(100)], 0.0, reading)
    assert numbers["decades_per_step_tokens"] == pytest.approx(-1.0)
    assert np.isnan(numbers["decades_per_step_padding"])
    assert numbers["log10_at_20"] == pytest.approx(-20 - np.log10(2))


def test_the_median_over_seeds_keeps_never_apart_from_missing() -> None:
    row: dict[str, Any] = {"log10_at_20": np.nan, "examples": 1}
    names = {"condition": "a", "factor": "b", "cell": "rnn"}
    rows = [
        names | row | {"seed": seed, "log10_at_end": end, "horizon": h, "float32_zero_from": z}
        for seed, end, h, z in ((1, -1.0, 5, np.nan), (2, -3.0, 7, 9), (3, -np.inf, 8, np.nan))
    ]
    median = over_seeds(pd.DataFrame(rows)).iloc[0]
    assert median["log10_at_end"] == -3.0
    assert median["horizon"] == 7
    assert pd.isna(median["float32_zero_from"])
    assert np.isnan(median["log10_at_20"])


def test_of_two_seeds_of_which_one_is_zero_its_steps_are_named() -> None:
    names = {"condition": "a", "factor": "b", "cell": "lstm", "examples": 1}
    for end in (-0.4, -3.0):
        numbers = {"horizon": 140, "float32_zero_from": 142, "log10_at_end": -np.inf}
        other = {"horizon": np.nan, "float32_zero_from": np.nan, "log10_at_end": end}
        rows = [names | numbers | {"seed": 1}, names | other | {"seed": 2}]
        median = over_seeds(pd.DataFrame(rows)).iloc[0]
        assert median["log10_at_end"] == -np.inf
        assert (median["float32_zero_from"], median["horizon"]) == (142, 140)


def test_a_curve_over_seeds_is_their_median_between_least_and_most() -> None:
    curves = [
        pd.DataFrame({"step": [1, 5], "log10": [-1.0 * k, end], "condition": "a", "cell": "rnn"})
        for k, end in ((1, -np.inf), (2, -9.0), (6, -np.inf))
    ]
    found = curves_over_seeds(pd.concat(curves))
    assert list(found) == ["condition", "cell", "step", "log10", "low", "high"]
    assert found["step"].tolist() == [1, 5]
    assert found["log10"].tolist() == [-2.0, -np.inf]
    assert found["low"].tolist() == [-6.0, -np.inf]
    assert found["high"].tolist() == [-1.0, -9.0]
