"""The measurements as data: what is computed, by whom, and which goal the times have to reach."""

from typing import NamedTuple


class Work(NamedTuple):
    """A layer of H units that reads a batch of sequences of T steps.

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
    cell: str = "lstm"

    def __str__(self) -> str:
        return f"T {self.steps:,}, H {self.hidden}, batch {self.batch}"


class Case(NamedTuple):
    """Competitors that take turns on the same arrays, and a goal for the first two.

    goal: "≥ 2" times as fast as the second is the first; it takes "≤ 2" times as long as the
        second, or as many seconds where it is alone.
    ways: the competitors, `file.function option=value ...` of this folder.
    check: the same, of reference.py; it tells whether a result is right.
    code: the parts of src/rnngrad that are timed; when they change the case is measured again.
    """

    what: str  # {} stands for the size
    goal: str
    unit: str
    work: Work
    ways: tuple[str, ...]
    check: str = "curves"
    code: tuple[str, ...] = ("probe",)
    rounds: int = 5

    def quick(self) -> "Case":
        """So small that its times mean nothing."""
        T, H, batch = map(min, self.work[:3], (40, 16, 4))
        return self._replace(work=self.work._replace(steps=T, hidden=H, batch=batch), rounds=1)


CURVES = "rnngrad_ways.curves statistics=frobenius,column_sum"
JAX = "jax_ways.curves dtype=float64"
FORWARD = "torch_ways.forward"
EVERYBODY = {  # who computes the curves of all t: a line of the table and of the figure each
    CURVES: "rnngrad, float64",
    JAX: "JAX scan of jvp, float64",
    "jax_ways.curves dtype=float32": "JAX scan of jvp, float32",
    "torch_ways.jacfwd_of_all_steps": "torch.func.jacfwd, float32",
    "tensorflow_ways.gradients": "TensorFlow, the question's way",
    "torch_ways.products": "the matrix products alone, float64",
    FORWARD: "plain nn.LSTM forward, float32",
}
SIZES = {  # T, H, batch; times as fast as JAX
    (50, 32, 1): "≥ 1",
    (1403, 32, 1): "≥ 2",
    (200, 100, 8): "≥ 2",
    (1403, 200, 1): "≥ 3.5",
    (1403, 200, 10): "≥ 7.5",
    (1403, 200, 100): "≥ 7.5",
}
ONE = Work(1403, 200, 1, question=True)
PADDED = Work(1403, 200, 100, question=True, padded=True)
SNIPPET = Work(1403, 200, 8)  # README's first lines of the library
SHORT = Work(35, 200, 100)  # hardly a direction dies in so few steps
TRAINING, NOTHING = Work(1403, 200, 32), Work(1, 1, 1)
FASTER, LONGER = "times as fast", "times as long"
LSTM = f"{CURVES} cell=lstm"


def _size(T: int, H: int, batch: int, goal: str) -> Case:
    work, ways = Work(T, H, batch, question=True), tuple(EVERYBODY)
    return Case("curves at every t, {}", goal, f"{FASTER} as JAX in float64", work, ways)


def _training(padding: str, goal: str) -> Case:
    ways = tuple(f"study_ways.{way} padding={padding}" for way in ("training", "padded_training"))
    what, check = f"training, padding {padding}, {{}}", f"gradients padding={padding}"
    unit = f"{FASTER} as padding everything"
    return Case(what, goal, unit, TRAINING, ways, check, code=("models", "data"))


CASES: dict[str, Case] = {
    **{"x".join(map(str, size)): _size(*size, goal) for size, goal in SIZES.items()},
    "padded": Case("padded comments, {}", "≤ 2", "plain forwards", PADDED, (CURVES, FORWARD)),
    "triangle": Case(
        "weight-gradient triangle, {}", "≥ 25", f"{FASTER} as T backward passes", ONE,
        ("rnngrad_ways.triangle", "torch_ways.backward_passes"), "triangle",
    ),
    "spectral": Case(
        "spectral norm at every t on top, {}", "≤ 1.5", LONGER, ONE, (f"{CURVES},spectral", CURVES)
    ),
    "busy": Case(
        "beside two busy processes, {}", "≤ 2.5", LONGER, SNIPPET, (f"{CURVES} busy=2", CURVES)
    ),
    "rnn": Case(
        "RNN, {}", "≤ .6", "of the LSTM's time", SHORT._replace(cell="rnn"), (CURVES, LSTM)
    ),
    "gru": Case(
        "GRU, {}", "≤ .6", "of the LSTM's time", SHORT._replace(cell="gru"), (CURVES, LSTM)
    ),
    "snippet": Case("README's curves, {}", "≤ 3", "s", SNIPPET, ("rnngrad_ways.curves",)),
    "diagnose": Case(
        "README's diagnose, {}", "≤ 6", "s", SNIPPET, ("rnngrad_ways.curves call=diagnose",)
    ),
    "lyapunov": Case(
        "all exponents, {}", "≤ 60", "s", SNIPPET, ("rnngrad_ways.lyapunov",), "exponents"
    ),
    "compile": Case(
        "all loops, in a fresh cache folder", "≤ 5", "s", NOTHING, ("rnngrad_ways.compiling",), ""
    ),
    "training-pre": _training("pre", "≥ 6"),
    "training-none": _training("none", "≥ 12"),
    "study": Case(
        "make study, all stages", "≤ 270", "s", NOTHING, ("study_ways.stages",), "",
        code=(".",), rounds=1,
    ),
}  # fmt: skip
