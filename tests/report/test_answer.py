"""The answer's sentences, and the table of what misled the question."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import CLAIMS, TIMES

from rnngrad.plot import FLOAT32_NORMAL
from rnngrad.report import metrics
from rnngrad.report.render import answer, render_markdown
from rnngrad.study.results import Results

CAUSES = ("float32_flushed", "no_padding", "trained", "averaging_bug")


def test_the_answer_is_four_short_sentences_with_the_numbers(results: Results) -> None:
    zeros, rnn, training, tutorials = said = answer(results, CLAIMS)
    assert zeros.startswith("The zeros are arithmetic, the vanishing is real: float32 flushed to")
    assert zeros.endswith("from step 551 on, the LSTM's true gradient ends at 10^-96.0.")
    assert "looked better only on padding, where its orthogonal matrix loses less with" in rnn
    assert rnn.endswith("a word leaves 78.2% of the gradient.")
    assert training.startswith("Trained without padding, a word leaves 95.8% of the LSTM's")
    assert training.endswith("untrained 84.7%.")
    assert tutorials.startswith("Of the 2 claims of the question and of three tutorials that were")
    assert tutorials.endswith("none holds without a condition.")
    assert max(len(line.split()) for line in said) <= 25


@pytest.mark.parametrize(("cell_path", "less"), [(-0.06, True), (-0.041, False), (-0.02, False)])
def test_the_answer_tells_where_gates_alone_would_leave_less(
    cell_path: float, less: bool, results: Results
) -> None:
    names = {"weights": "trained_without_padding", "input": "words"}
    paths = pd.DataFrame([names | {"seed": 1, "total": -0.04, "cell_path": cell_path}])
    known = replace(results, evidence=results.evidence | {"paths": paths})
    said = answer(known, CLAIMS)[2]
    assert said.endswith("its forget gates alone would leave less.") == less


def test_a_gradient_that_hardly_falls_is_not_said_to_vanish(results: Results) -> None:
    table = results.conditions.copy()
    lstm = (table["condition"] == "question") & (table["cell"] == "lstm")
    for end, vanishes in ((-0.8, False), (-30.0, True)):
        table.loc[lstm, "log10_at_end"] = end
        said = answer(replace(results, conditions=table), CLAIMS)
        assert any("vanishing is real" in line for line in said) == vanishes


def test_the_answer_does_without_what_was_not_run(results: Results) -> None:
    few = results.conditions.query("condition == 'trained'")
    no_gates = results.gates.iloc[:0]
    (said,) = answer(replace(results, conditions=few, gates=no_gates), [])
    assert said == "With these cells, seeds and conditions no claim can be judged."


BETTER, WORSE, UNSURE = (2.0, 4.0), (-4.0, -2.0), (-1.0, 1.0)


@pytest.mark.parametrize(
    ("question", "no_padding", "said"),
    [
        (BETTER, WORSE, "looked better only on padding, where its orthogonal matrix loses less"),
        (BETTER, BETTER, "looks better with padding and without: on words it ends at 10^-150.0"),
        (BETTER, UNSURE, "looks better with padding: on words it ends at 10^-150.0, the LSTM at "),
        (BETTER, UNSURE, "10^-101.0, and the seeds are too few to tell."),
        (UNSURE, WORSE, "ends at 10^-3.0, the LSTM at 10^-96.0: the seeds are too few to tell"),
        (WORSE, WORSE, "does not look better: it ends at 10^-3.0 with padding and at 10^-150.0"),
    ],
)
def test_which_cell_looks_better_is_what_claim_2_found(
    question: tuple[float, float], no_padding: tuple[float, float], said: str, results: Results
) -> None:
    ends = {"question": question, "no_padding": no_padding}
    measured = {
        f"{name}/{end}": value
        for name, interval in ends.items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    assert said in answer(results, [replace(CLAIMS[1], measured=CLAIMS[1].measured | measured)])[1]


def test_of_one_seed_the_answer_is_unsure(results: Results) -> None:
    assert "too few to tell" in answer(results, CLAIMS[:1])[1]  # no interval: no verdict 2


def test_a_gradient_that_is_zero_is_said_to_be_zero(results: Results) -> None:
    table = results.conditions.copy()
    lstm = (table["condition"] == "question") & (table["cell"] == "lstm")
    table.loc[lstm, "log10_at_end"] = -np.inf
    zeros, rnn, *_ = answer(replace(results, conditions=table), CLAIMS[:1])
    assert zeros == "The zeros are real: the LSTM's true gradient is exactly 0 at the last step."
    assert rnn == "The RNN ends at 10^-3.0, the LSTM at exactly 0."
    changes = causes_of(replace(results, conditions=table)).filter(like="_change")
    assert not np.isinf(changes).any(axis=None)


def causes_of(results: Results) -> pd.DataFrame:
    return metrics.cause_table(results, CAUSES)


def with_question(results: Results, **changes: object) -> Results:
    conditions = results.params.conditions
    question = conditions.question.model_copy(update=changes)
    changed = conditions.model_copy(update={"question": question})
    params = results.params.model_copy(update={"conditions": changed})
    return replace(results, params=params)


def test_training_is_held_against_models_that_begin_as_trained_ones(results: Results) -> None:
    assert "trained" in set(causes_of(results)["condition"])
    other = with_question(results, forget_bias=5.0)
    assert "trained" not in set(causes_of(other)["condition"])
    rows = {(row["cell"], row["weights"]): row for row in metrics.opened_gates(other)}
    assert rows["lstm", "init"]["rate"] is None
    assert rows["rnn", "init"]["rate"] is not None
    assert not any("untrained 84.7%" in line for line in answer(other, CLAIMS))


def test_a_question_without_padding_is_not_called_padded(results: Results) -> None:
    bare = with_question(results, padding="none")
    assert metrics.padding_share(bare) is None
    assert "no_padding" not in set(causes_of(bare)["condition"])
    page = render_markdown(bare, CLAIMS, (), TIMES)
    assert "steps are padding" not in page
    assert "| `padding` of the question's setting | none | pre |\n" in page


def test_the_answer_says_nothing_of_what_was_not_measured(results: Results) -> None:
    table = results.conditions.assign(decades_per_step_tokens=np.nan)
    assert not any("nan" in line for line in answer(replace(results, conditions=table), CLAIMS))
    table = results.conditions.assign(decades_per_step_padding=0.02)
    assert "leaves 104.7% of the gradient" in answer(replace(results, conditions=table), CLAIMS)[1]


def test_a_cause_shows_only_what_was_run(results: Results) -> None:
    table = results.conditions
    lstm_alone = table[~((table["condition"] == "averaging_bug") & (table["cell"] == "rnn"))]
    page = render_markdown(replace(results, conditions=lstm_alone), CLAIMS, (), TIMES)
    assert "halves it | `averaging_bug` |  | −96.3 |  | −0.3 |  |" in page
    assert causes_of(replace(results, conditions=table[table["condition"] == "question"])).empty
    neither = table[table["condition"].isin(["question", "float32"])]
    assert causes_of(replace(results, conditions=neither)).empty


def test_of_an_input_without_comments_the_answer_says_nothing_of_theirs(results: Results) -> None:
    said = answer(with_question(results, input="emptied_comments"), CLAIMS)
    assert not any("of padding leaves" in line for line in said)


def test_causes_are_in_the_order_of_their_effect(results: Results) -> None:
    causes = causes_of(results).set_index("condition")
    assert list(causes.index) == ["trained", "no_padding", "float32_flushed", "averaging_bug"]
    # the question's lead is 93 decades
    assert causes.loc["trained", "lead_change"] == pytest.approx(-140 + 36 - 93)
    assert causes.loc["averaging_bug", "lead_change"] == pytest.approx(0)
    hidden = causes.loc["float32_flushed", "lstm_change"]
    assert hidden == pytest.approx(-96 - FLOAT32_NORMAL)
    page = render_markdown(results, CLAIMS, (), TIMES)
    assert (
        "10<sup>−37.9</sup> | `float32_flushed` | −3.0 | exactly 0 | 0.0 | −58.1 | +58.1 |" in page
    )


@pytest.mark.parametrize(
    "left_out", ["condition == 'question'", "cell == 'rnn' & condition == 'question'"]
)
def test_causes_need_the_question_s_own_setting(left_out: str, results: Results) -> None:
    table = results.conditions.query(f"not ({left_out})")
    assert causes_of(replace(results, conditions=table)).empty
    assert render_markdown(replace(results, conditions=table), CLAIMS, (), TIMES)


def test_padding_is_no_share_where_the_steps_cut_comments(results: Results) -> None:
    words = results.data_card["sample"]["words"] | {"max": 1e6}
    card = results.data_card | {"sample": results.data_card["sample"] | {"words": words}}
    cut = replace(results, data_card=card)
    assert metrics.padding_share(cut) is None
    page = render_markdown(cut, CLAIMS, (), TIMES)
    assert "some of the steps are padding" in page
    assert "of all steps are padding" not in page
