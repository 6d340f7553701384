"""The measurements: the curves beside all that a user would pick instead, and the other goals.

    python -m benchmarks.goals padded cells      prints JSON

The contenders of a measurement take turns. No time counts before the numbers agree with the
reference.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import rnngrad
from benchmarks.cases import FEATURES, Case, make_problem
from benchmarks.competitors import Curves
from benchmarks.competitors.probe import STATISTICS, State, curves, forward, lstm_of, state_of
from benchmarks.extrapolation import from_some_steps
from benchmarks.findings import QUESTION, TINY, Finding, Sizes, interleaved, median, ratio
from benchmarks.rounds import run_case
from benchmarks.verification import RefusedError, exponents, lstm_step, reference, verify
from rnngrad.data.demo import real_word_counts

CASES = {  # how many times as long JAX in float64 is to take
    Case(50, 32, 1): "≥ 1",
    Case(1403, 32, 1): "≥ 2",
    Case(200, 100, 8): "≥ 2",
    Case(1403, 200, 1): "≥ 3.5",
    Case(1403, 200, 10): "≥ 7.5",
    Case(1403, 200, 100): "≥ 7.5",
}
RESOLVED = 1e-6  # a part below this share of its row's largest is not compared


def against_others(case: Case, sizes: Sizes) -> list[dict[str, Any]]:
    within = Case(*(min(pair) for pair in zip(case, sizes[:3], strict=True)))
    return [run_case(within, CASES[case], sizes.rounds)]


def padded(sizes: Sizes) -> list[Finding]:
    """Comments of the question's lengths with zeros in front, all from one initial state."""
    torch.set_flush_denormal(True)  # else a forward over zeros is no unit on some processors
    T, B = sizes.steps, sizes.batch
    problem = make_problem(Case(*sizes[:3]))
    words = np.minimum(real_word_counts(B), T)
    problem.inputs[np.arange(T) < (T - words)[:, None]] = 0
    problem.h[:], problem.c[:] = problem.h[0], problem.c[0]
    work = lstm_of(problem), torch.from_numpy(problem.inputs), state_of(problem)
    note = _verified(curves(*work), *work)
    contenders = {"forward": lambda: forward(*work), "padded": lambda: curves(*work)}
    seconds = interleaved(contenders, sizes.rounds)
    what = f"padded comments, batch {B}, mean length {words.mean():.0f} of {T:,}"
    return [ratio(what, seconds, "padded", "forward", "plain forwards", note=note, goal="≤ 2")]


def triangle(sizes: Sizes) -> list[Finding]:
    """The norms of dL_T/dW_hh by step, for all T, against T backward passes; one example."""
    T = sizes.steps
    problem = make_problem(Case(T, sizes.hidden, 1))
    lstm, state, x = lstm_of(problem), state_of(problem), torch.from_numpy(problem.inputs)
    g = torch.randn(1, T, sizes.hidden, generator=torch.Generator().manual_seed(0))
    one = [x[0], *(s[0, 0] for s in state), g[0]]
    exact, passes = _passes(lstm, *(v.double() for v in one)), _passes(lstm, *one)
    some = sorted({1, max(1, T // 4), max(1, T // 2), T})
    true, ratios, error = {t: exact(t) for t in some}, [], 0.0
    for _ in range(sizes.rounds):
        start = perf_counter()
        found = rnngrad.weight_gradient_parts(lstm, x, g, state)["weight_hh_l0"][0]
        ours, seconds = perf_counter() - start, {}
        for t, row in true.items():
            kept = row > RESOLVED * row.max()
            error = max(error, np.abs(found[t - 1, :t][kept] / row[kept] - 1).max())
            start = perf_counter()
            passes(t)
            seconds[t] = perf_counter() - start
        ratios.append(from_some_steps(seconds, T) / ours)
    note = _checked(error, 1e-9)
    what = f"weight-gradient triangle, T {T:,}, against T backward passes (≈)"
    return [median(what, ratios, "times as fast", note, "≥ 25")]


def _passes(
    lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor, g: Tensor
) -> Callable[[int], np.ndarray]:
    """||delta_s h_(s-1)^T|| of the loss at step t for s = 1 .. t, by autograd, in x's dtype."""
    W_ih, W_hh, b_ih, b_hh = (p.detach().to(x.dtype) for p in lstm.parameters())
    a_x = (x @ W_ih.T + b_ih + b_hh).requires_grad_()
    a, states, losses = [], [h], []
    for t in range(len(x)):
        a.append(a_x[t] + W_hh @ h)
        h, c = lstm_step(a[-1], torch.zeros(()), h, c)
        states.append(h)
        losses.append(h @ g[t])

    def parts(t: int) -> np.ndarray:
        delta = torch.autograd.grad(losses[t - 1], a[:t], retain_graph=True)
        norms = [torch.linalg.vector_norm(torch.stack(v), dim=1) for v in (delta, states[:t])]
        return (norms[0] * norms[1]).detach().double().numpy()

    return parts


def spectral(sizes: Sizes) -> list[Finding]:
    problem = make_problem(Case(sizes.steps, sizes.hidden, 1))
    work = lstm_of(problem), torch.from_numpy(problem.inputs), state_of(problem)
    everything = (*STATISTICS, "spectral")
    note = _verified(curves(*work, everything), *work)
    contenders = {"curves": lambda: curves(*work), "all": lambda: curves(*work, everything)}
    seconds = interleaved(contenders, sizes.rounds)
    what, unit = "spectral norm at every t on top, batch 1", "times the curves alone"
    return [ratio(what, seconds, "all", "curves", unit, note=note, goal="≤ 1.5")]


def busy(sizes: Sizes) -> list[Finding]:
    """A call beside two processes that never wait."""
    work = _snippet(sizes)
    note = _verified(curves(*work), *work)
    seconds: dict[str, list[float]] = {"idle": [], "busy": []}
    for _ in range(sizes.rounds):
        seconds["idle"] += interleaved({"idle": lambda: curves(*work)}, 1)["idle"]
        with _two_busy_processes():
            seconds["busy"] += interleaved({"busy": lambda: curves(*work)}, 1)["busy"]
    what = f"one call, batch {len(work[1])}, beside two busy processes, against idle"
    return [ratio(what, seconds, "busy", "idle", "times as long", note=note, goal="≤ 2.5")]


@contextmanager
def _two_busy_processes() -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.3)  # until they are
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cells(sizes: Sizes) -> list[Finding]:
    """RNN and GRU beside the LSTM; a step of theirs takes one (H, H) product, the LSTM's two."""
    T = max(sizes.steps // 40, 1)
    torch.manual_seed(0)
    inputs = torch.randn(sizes.batch, T, FEATURES)
    contenders, notes = {}, {}
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        module = kind(FEATURES, sizes.hidden, batch_first=True)
        work = module, inputs, _zeros(module, inputs)
        notes[kind.__name__] = _verified(curves(*work), *work)
        contenders[kind.__name__] = partial(curves, *work)
    seconds = interleaved(contenders, sizes.rounds)
    unit, size = "of the LSTM's time", f"{T} steps, batch {sizes.batch}"
    return [
        ratio(f"{name}, {size}", seconds, name, "LSTM", unit, note=notes[name], goal="≤ 0.6")
        for name in ("RNN", "GRU")
    ]


def snippet(sizes: Sizes) -> list[Finding]:
    """README's first example."""
    lstm, inputs, state = _snippet(sizes)
    note = _verified(curves(lstm, inputs, state, (*STATISTICS, "spectral")), lstm, inputs, state)
    diagnosis = rnngrad.diagnose(lstm, inputs, state="c")
    of_it = Curves(diagnosis.log10_column_sum, diagnosis.log10_frobenius)
    _verified(of_it, lstm, inputs, state)
    with np.errstate(divide="ignore"):
        naive = Curves(np.log10(diagnosis.naive.astype(float)))
    verify(naive, reference(lstm, inputs, state), len(inputs), exact=False)
    contenders = {
        "jacobian_curves": lambda: rnngrad.jacobian_curves(lstm, inputs, state="c"),
        "diagnose": lambda: rnngrad.diagnose(lstm, inputs, state="c"),
    }
    seconds = interleaved(contenders, sizes.rounds)
    size = f"LSTM({FEATURES}, {sizes.hidden}), {len(inputs)} x {sizes.steps:,}"
    return [
        median(f"README's snippet, {size}: {name}", seconds[name], "s", note, goal)
        for name, goal in (("jacobian_curves", "≤ 3"), ("diagnose", "≤ 6"))
    ]


def lyapunov(sizes: Sizes) -> list[Finding]:
    """All exponents, beside those from a QR after every step."""
    lstm, inputs, state = _snippet(sizes)
    found, true = rnngrad.lyapunov_exponents(lstm, inputs), exponents(lstm, inputs, state)
    # each depends on the first directions, which are free, by some e-folds in all; their sum not
    _checked(np.abs(found[0] - true).max(), 20 / sizes.steps)
    note = _checked(abs(found[0].sum() / true.sum() - 1), 1e-9)
    run = {"all": lambda: rnngrad.lyapunov_exponents(lstm, inputs)}
    seconds = interleaved(run, min(sizes.rounds, 3))["all"]
    what = f"all {found.shape[1]} Lyapunov exponents, {len(inputs)} x {sizes.steps:,}"
    return [median(what, seconds, "s", note, "≤ 60")]


def training(sizes: Sizes) -> list[Finding]:
    from benchmarks.learning import training as measure

    return measure(sizes)


def _snippet(sizes: Sizes) -> tuple[nn.LSTM, Tensor, State]:
    torch.manual_seed(0)
    lstm = nn.LSTM(FEATURES, sizes.hidden, batch_first=True)
    inputs = torch.randn(min(8, sizes.batch), sizes.steps, FEATURES)
    return lstm, inputs, _zeros(lstm, inputs)


def _zeros(module: nn.RNNBase, inputs: Tensor) -> State:
    zeros = torch.zeros(1, len(inputs), module.hidden_size)
    return (zeros, zeros) if isinstance(module, nn.LSTM) else (zeros,)


def _verified(found: Curves, module: nn.Module, inputs: Tensor, state: State) -> str:
    """The accuracy of a first run in words; spectral norms are looked at here and there."""
    T = inputs.shape[1]
    some = {*np.geomspace(1, T, 20).round().astype(int).tolist()}
    true = reference(module, inputs, state, () if found.spectral is None else some)
    errors, _ = verify(found, true, len(inputs), exact=True)
    return f"worst relative error {max(errors.values()):.0e}"


def _checked(error: float, limit: float) -> str:
    if not error <= limit:
        raise RefusedError(f"off by {error:.0e}; {limit:.0e} is promised")
    return f"worst relative error {error:.0e}"


MEASUREMENTS: dict[str, Callable[[Sizes], list[Any]]] = {
    **{"x".join(map(str, case)): partial(against_others, case) for case in CASES},
    "padded": padded,
    "triangle": triangle,
    "spectral": spectral,
    "busy": busy,
    "cells": cells,
    "snippet": snippet,
    "lyapunov": lyapunov,
    "training": training,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=MEASUREMENTS)
    parser.add_argument("--rounds", type=int, default=QUESTION.rounds)
    parser.add_argument("--quick", action="store_true", help="does it run? Its numbers say nothing")
    args = parser.parse_args()
    sizes = (TINY if args.quick else QUESTION)._replace(rounds=args.rounds)
    print(json.dumps([found for name in args.names for found in _measured(name, sizes)]))


def _measured(name: str, sizes: Sizes) -> list[dict[str, Any]]:
    try:
        found = MEASUREMENTS[name](sizes)
    except Exception as error:  # whatever is raised: the others go on
        return [{"what": name, "refused": f"{type(error).__name__}: {error}".splitlines()[0][:200]}]
    return [row._asdict() if isinstance(row, Finding) else row for row in found]


if __name__ == "__main__":
    main()
