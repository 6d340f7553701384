import numpy as np
import pytest

from rnngrad.study.evidence.stretches import (
    Stretch,
    change_per_step,
    most_of_both,
    settled_stretches,
    stretches,
)


def masks(words: list[range], T: int) -> dict[str, np.ndarray]:
    read = np.array([[t in each for t in range(T)] for each in words])
    return {"padding": ~read, "words": read}


def test_stretches_are_the_unbroken_runs_of_each_example() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], dtype=bool)
    assert stretches(mask) == [Stretch(0, 0, 2), Stretch(0, 3, 4), Stretch(2, 1, 4)]
    assert [len(stretch) for stretch in stretches(mask)] == [2, 1, 3]


def test_padding_settles_for_100_steps_or_for_half_of_them() -> None:
    found = settled_stretches(masks([range(250, 260), range(30, 260)], 260))
    assert found["padding"] == [Stretch(0, 100, 250), Stretch(1, 15, 30)]
    assert found["words"] == [Stretch(0, 250, 260), Stretch(1, 30, 260)]


def test_the_example_with_most_of_both_inputs() -> None:
    words = [range(9, 10), range(4, 10), range(10)]
    assert most_of_both(masks(words, 10)) == 1
    assert most_of_both(masks([range(10), range(10)], 10)) == 0


def test_change_per_step_weighs_stretches_by_their_steps() -> None:
    values = np.array([[0.0, -1.0, -2.0, -7.0, -7.0], [5.0, -np.inf, np.nan, 1.0, 3.0]])
    over = [Stretch(0, 0, 3), Stretch(0, 3, 5), Stretch(1, 3, 5)]
    assert change_per_step(values, over) == pytest.approx((-2 + 0 + 2) / (2 + 1 + 1))


def test_steps_without_a_finite_value_do_not_count() -> None:
    values = np.array([[-np.inf, -1.0, np.nan]])
    assert np.isnan(change_per_step(values, [Stretch(0, 0, 2), Stretch(0, 1, 3)]))
    assert np.isnan(change_per_step(values, [Stretch(0, 1, 2)]))
    # the second step of one comment of one word
    assert np.isnan(change_per_step(values[:, :1], [Stretch(0, 1, 1)]))
    assert np.isnan(change_per_step(values, []))
