"""The measurements as data: what is computed, by whom, and which goal the times have to reach."""

from collections.abc import Mapping
from typing import NamedTuple


class Work(NamedTuple):
    """One layer of H units reads a batch of sequences of T steps.

    question: Keras' initial weights, forget bias 1, h_0 and c_0 from U(0, 1), as the question has
        it; else torch's weights and the zero state.
    padded: comments of the question's lengths with zeros in front, all from one initial state; else
        every step has an input of its own, and nothing can be shared.
    """

    steps: int
    hidden: int
    batch: int
    question: bool = False
    padded: bool = False

    def __str__(self) -> str:
        return f"T {self.steps:,}, H {self.hidden}, batch {self.batch}"


class Competitor(NamedTuple):
    """way: `file.function option=value ...`, which takes one turn.

    accuracy: "exact" has to keep the promise of rnngrad, else its time does not count; "float32" is
        marked where it is off; "none" has no result to look at.
    """

    way: str
    accuracy: str = "exact"
    cell: str = "lstm"


class Goal(NamedTuple):
    """Seconds of `over` by those of `under`, or seconds alone, and their limit, such as "≥ 2"."""

    what: str  # {} stands for the size
    limit: str
    unit: str
    over: str
    under: str | None = None


class Case(NamedTuple):
    """Competitors that take turns on the same arrays.

    check: `function option=value ...` of reference.py, which tells whether a result is right.
    code: the parts of src/rnngrad that are timed; when they change the case is measured again.
    """

    work: Work
    competitors: Mapping[str, Competitor]
    goals: tuple[Goal, ...]
    check: str | None = "curves"
    code: tuple[str, ...] = ("probe",)
    rounds: int = 5

    def quick(self) -> "Case":
        """So small that its times mean nothing."""
        T, H, batch = (min(pair) for pair in zip(self.work, (40, 16, 4), strict=False))
        return self._replace(work=Work(T, H, batch, *self.work[3:]), rounds=1)


PROBE = "rnngrad, float64"
UNIT = "plain nn.LSTM forward, float32"
JAX = "JAX scan of jvp, float64"
CURVES = Competitor("rnngrad_ways.curves statistics=frobenius,column_sum")
FORWARD = Competitor("torch_ways.forward", "none")
EVERYBODY = {  # who computes the curves of all t: a line of the table and of the figure each
    PROBE: CURVES,
    UNIT: FORWARD,
    "the matrix products alone, float64": Competitor("torch_ways.products", "none"),
    JAX: Competitor("jax_ways.curves dtype=float64"),
    "JAX scan of jvp, float32": Competitor("jax_ways.curves dtype=float32", "float32"),
    "torch.func.jacfwd, float32": Competitor("torch_ways.jacfwd_of_all_steps", "float32"),
    "TensorFlow, the question's way": Competitor("tensorflow_ways.gradients", "float32"),
}
FASTER_THAN_JAX = {  # T, H, batch
    (50, 32, 1): "≥ 1",
    (1403, 32, 1): "≥ 2",
    (200, 100, 8): "≥ 2",
    (1403, 200, 1): "≥ 3.5",
    (1403, 200, 10): "≥ 7.5",
    (1403, 200, 100): "≥ 7.5",
}
SNIPPET = Work(1403, 200, 8)  # README's first lines of the library
ONE = Work(1403, 200, 1, question=True)
FASTER, LONGER = "times as fast", "times as long"


def _size(size: tuple[int, int, int], limit: str) -> Case:
    goal = Goal("curves at every t, {}", limit, "times as fast as JAX in float64", JAX, PROBE)
    return Case(Work(*size, question=True), EVERYBODY, (goal,))


def _training(padding: str, limit: str) -> Case:
    ways = {
        who: Competitor(f"training_ways.{who} padding={padding}", "float32")
        for who in ("study", "padded")
    }
    what = f"training, padding {padding}, against padding everything, {{}}"
    goal, check = Goal(what, limit, FASTER, "padded", "study"), f"gradients padding={padding}"
    return Case(Work(1403, 200, 32), ways, (goal,), check, code=("models", "data"))


CASES: dict[str, Case] = {
    **{"x".join(map(str, size)): _size(size, limit) for size, limit in FASTER_THAN_JAX.items()},
    "padded": Case(
        Work(1403, 200, 100, question=True, padded=True),
        {"curves": CURVES, "forward": FORWARD},
        (Goal("padded comments, {}", "≤ 2", "plain forwards", "curves", "forward"),),
    ),
    "triangle": Case(
        ONE,
        {
            "parts": Competitor("rnngrad_ways.triangle"),
            "passes": Competitor("torch_ways.backward_passes", "float32"),
        },
        (Goal("weight-gradient triangle, {}, against T backward passes", "≥ 25", FASTER,
              "passes", "parts"),),
        check="triangle",
    ),
    "spectral": Case(
        ONE,
        {"with": CURVES._replace(way=f"{CURVES.way},spectral"), "without": CURVES},
        (Goal("spectral norm at every t on top, {}", "≤ 1.5", LONGER, "with", "without"),),
    ),
    "busy": Case(
        SNIPPET,
        {"busy": CURVES._replace(way=f"{CURVES.way} busy=2"), "idle": CURVES},
        (Goal("curves beside two busy processes, {}", "≤ 2.5", LONGER, "busy", "idle"),),
    ),
    "cells": Case(
        Work(35, 200, 100),  # so few steps that hardly a direction has died
        {cell: CURVES._replace(cell=cell) for cell in ("lstm", "rnn", "gru")},
        (
            Goal("RNN, {}", "≤ 0.6", "of the LSTM's time", "rnn", "lstm"),
            Goal("GRU, {}", "≤ 0.6", "of the LSTM's time", "gru", "lstm"),
        ),
    ),
    "snippet": Case(
        SNIPPET,
        {
            "curves": Competitor("rnngrad_ways.curves"),
            "diagnose": Competitor("rnngrad_ways.curves call=diagnose"),
        },
        (
            Goal("README's snippet, {}: jacobian_curves", "≤ 3", "s", "curves"),
            Goal("README's snippet, {}: diagnose", "≤ 6", "s", "diagnose"),
        ),
    ),
    "compile": Case(
        Work(1, 1, 1),
        {"compile": Competitor("rnngrad_ways.compiling", "none")},
        (Goal("all loops compiled, in a fresh cache folder", "≤ 5", "s", "compile"),),
        check=None,
    ),
    "lyapunov": Case(
        SNIPPET,
        {"exponents": Competitor("rnngrad_ways.lyapunov")},
        (Goal("all Lyapunov exponents, {}", "≤ 60", "s", "exponents"),),
        check="exponents",
    ),
    "training-pre": _training("pre", "≥ 6"),
    "training-none": _training("none", "≥ 12"),
    "study": Case(
        Work(1, 1, 1),
        {"stages": Competitor("study_ways.stages", "none")},
        (Goal("make study, all stages, after installation", "≤ 270", "s", "stages"),),
        check=None,
        code=(".",),
        rounds=1,
    ),
}  # fmt: skip
