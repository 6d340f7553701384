"""What else the probe is asked for: padded batches, spectral norms, sketches, other cells, long T.

    python -m benchmarks.measurements padded      one of them; prints JSON

Every measurement runs in a process of its own, its contenders in turns.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from unittest.mock import patch

from benchmarks.cases import Case, Problem, make_problem
from benchmarks.findings import QUESTION, TINY, Finding, Sizes, interleaved, ratio
from benchmarks.process import ROOT, thread_environment

LIMIT = 900.0  # seconds
EXACT = ("frobenius", "column_sum")


def padded(sizes: Sizes) -> list[Finding]:
    """Comments of the question's lengths with zeros in front, all from one initial state.

    On zeros the states die away, and a plain forward would take ten times as long on some
    processors with their denormal numbers; the probe takes as long either way.
    """
    import numpy as np
    import torch

    from rnngrad import jacobian_curves
    from rnngrad.data.demo import real_word_counts
    from rnngrad.probe import tangents

    torch.set_flush_denormal(True)
    T = sizes.steps
    problem = make_problem(Case(T, sizes.hidden, sizes.batch))
    lstm, state, full = _torch(problem)
    words = np.minimum(real_word_counts(sizes.batch), T)
    inputs = full * (torch.arange(T) >= torch.from_numpy(T - words)[:, None]).unsqueeze(2)
    same = (state[0][:, :1].expand_as(state[0]), state[1][:, :1].expand_as(state[1]))
    part = max(sizes.batch // 20, 1)
    few = (state[0][:, :part], state[1][:, :part])
    forward = _forward(lstm, inputs, same)

    def all_directions():
        with patch.object(tangents, "COMPRESS_EVERY", sys.maxsize):
            return jacobian_curves(lstm, full[:part], few, state="c", statistics=EXACT)

    contenders: dict[str, Callable[[], object]] = {
        "forward": forward,
        "padded": lambda: jacobian_curves(lstm, inputs, same, state="c", statistics=EXACT),
        "part": all_directions,
    }
    seconds = interleaved(contenders, sizes.rounds)
    mean = f"mean length {words.mean():.0f} of {T:,}"
    note = f"full size from {part} of its {sizes.batch} examples, no direction dropped"
    return [
        ratio(f"padded comments, {mean}", seconds, "padded", "forward", "plain forwards"),
        ratio(
            "padded comments against the full-size run",
            seconds, "part", "padded", "times faster", sizes.batch / part, note,
        ),
    ]  # fmt: skip


def spectral(sizes: Sizes) -> list[Finding]:
    """The largest singular value at every t, and at 60 steps evenly spread in log t."""
    import numpy as np

    from rnngrad import jacobian_curves

    lstm, state, inputs = _torch(make_problem(Case(sizes.steps, sizes.hidden, 1)))
    some = np.unique(np.geomspace(1, sizes.steps, 60).round().astype(int))

    def curves(**asked):
        return lambda: jacobian_curves(lstm, inputs, state, state="c", **asked)

    contenders = {
        "curves": curves(statistics=EXACT),
        "some": curves(statistics=(*EXACT, "spectral"), spectral_steps=some),
        "every": curves(statistics=(*EXACT, "spectral")),
    }
    seconds = interleaved(contenders, min(sizes.rounds, 2))
    unit = "times the curves alone, batch 1"
    return [
        ratio("with the spectral norm at every t", seconds, "every", "curves", unit),
        ratio(f"with the spectral norm at {len(some)} steps", seconds, "some", "curves", unit),
    ]


def sketch(sizes: Sizes) -> list[Finding]:
    """Frobenius norms from four random directions; and what float64, which they need, costs."""
    import copy

    from rnngrad import jacobian_curves

    lstm, state, inputs = _torch(make_problem(Case(*sizes[:3])))
    in_float64 = copy.deepcopy(lstm).double(), inputs.double(), tuple(s.double() for s in state)
    contenders = {
        "forward": _forward(lstm, inputs, state),
        "float64": _forward(*in_float64),
        "sketch": lambda: jacobian_curves(
            lstm, inputs, state, state="c", method="sketch", directions=4, statistics="frobenius"
        ),
    }
    seconds = interleaved(contenders, sizes.rounds)
    unit = "plain forwards"
    return [
        ratio("sketch, 4 directions", seconds, "sketch", "forward", unit),
        ratio("a forward in float64, as the sketch needs", seconds, "float64", "forward", unit),
    ]


def cells(sizes: Sizes) -> list[Finding]:
    """RNN and GRU beside the LSTM; a step of theirs takes one (H, H) product, the LSTM's two."""
    import torch

    from rnngrad import jacobian_curves

    T = max(sizes.steps // 40, 1)
    torch.manual_seed(0)
    inputs = torch.randn(sizes.batch, T, 100)
    contenders = {}
    for name in ("LSTM", "GRU", "RNN"):
        module = getattr(torch.nn, name)(100, sizes.hidden, batch_first=True)
        state = "c" if name == "LSTM" else "h"
        contenders[name] = lambda m=module, s=state: jacobian_curves(
            m, inputs, state=s, statistics=EXACT
        )
    seconds = interleaved(contenders, sizes.rounds)
    unit = "of the LSTM's time"
    return [ratio(f"{n}, {T} steps", seconds, n, "LSTM", unit) for n in ("GRU", "RNN")]


def long(sizes: Sizes) -> list[Finding]:
    """Time and peak memory of one example against T, a process for each."""
    found = []
    unit = sizes.steps
    lengths = [unit // 4, unit, 10_000] if unit > 1000 else [unit, 2 * unit]
    runs = {T: _memory_of(T, sizes.hidden) for T in lengths}
    for T, run in runs.items():
        per_step = (run["seconds"] / T) / (runs[unit]["seconds"] / unit)
        note = f"peak {run['peak_mib']:.0f} MiB over imports and inputs"
        what = f"one step at T = {T:,}"
        found.append(
            Finding(what, per_step, per_step, per_step, f"of a step at T = {unit:,}", note)
        )
    return found


def _memory_of(T: int, hidden: int) -> dict[str, float]:
    sizes = ["--steps", str(T), "--hidden", str(hidden), "--batch", "1"]
    command = [sys.executable, "-m", "benchmarks.memory", "--json", *sizes]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _torch(problem: Problem):
    import torch

    from benchmarks.competitors.probe import lstm_of, state_of

    return lstm_of(problem), state_of(problem), torch.from_numpy(problem.inputs)


def _forward(lstm, inputs, state) -> Callable[[], object]:
    import torch

    def run() -> None:
        with torch.no_grad():
            lstm(inputs, state)

    return run


def triangle(sizes: Sizes) -> list[Finding]:
    from benchmarks.learning import triangle as measure

    return measure(sizes)


def training(sizes: Sizes) -> list[Finding]:
    from benchmarks.learning import training as measure

    return measure(sizes)


MEASUREMENTS = {
    function.__name__: function
    for function in (padded, spectral, triangle, sketch, training, cells, long)
}


def run_measurement(name: str, tiny: bool, threads: int) -> list[dict[str, object]]:
    """In a process of its own; one that fails is reported as refused."""
    command = [sys.executable, "-m", "benchmarks.measurements", name, *["--tiny"] * tiny]
    environment = os.environ | thread_environment(threads)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return [{"what": name, "refused": f"no answer within {LIMIT:.0f} s"}]
    if done.returncode:
        message = (done.stderr.strip() or "its process has ended").splitlines()[-1]
        return [{"what": name, "refused": message[:200]}]
    return json.loads(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("--tiny", action="store_true", help="does it run? The numbers mean nothing")
    args = parser.parse_args()
    findings = MEASUREMENTS[args.name](TINY if args.tiny else QUESTION)
    print(json.dumps([finding._asdict() for finding in findings]))
