"""All claims, judged by the results of one study."""

import pandas as pd

from rnngrad.study.claims.blocking import judge_blocking, judge_output_gate_path
from rnngrad.study.claims.claim import Claim
from rnngrad.study.claims.decay import judge_rnn_is_better, judge_sharp_fall
from rnngrad.study.claims.gates import judge_forget_bias, judge_gate_rate, judge_varying_gates
from rnngrad.study.claims.learning import (
    gradient_predicts_memory,
    judge_late_steps,
    judge_the_task,
    scores_on_test,
)
from rnngrad.study.claims.paths import judge_one_path, judge_powers
from rnngrad.study.results import Results


def judge_all(results: Results) -> list[Claim]:
    """Every claim that the cells and conditions of params.yaml allow to judge, by its number."""
    seeds, evidence = results.condition_seeds, results.evidence
    memory = gradient_predicts_memory(evidence["remembered"])
    judged = [
        judge_sharp_fall(seeds),
        judge_rnn_is_better(seeds),
        judge_the_task(scores_on_test(results.model_cards), memory),
        judge_late_steps(evidence["shares"]),
        judge_blocking(evidence["influences"]),
        judge_output_gate_path(evidence["output_gates"]),
        judge_forget_bias(seeds, results.gates),
        *(judge_paths(evidence["paths"]) if "paths" in evidence else []),
        judge_powers(evidence["powers"]) if "powers" in evidence else None,
    ]
    return sorted((claim for claim in judged if claim is not None), key=lambda claim: claim.id)


def judge_paths(paths: pd.DataFrame) -> list[Claim | None]:
    """The claims on the LSTM's two paths."""
    return [judge_gate_rate(paths), judge_one_path(paths), judge_varying_gates(paths)]
