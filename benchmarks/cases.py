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


class Competitor(NamedTuple):
    """way: `file.function option=value ...`, which takes one turn.

    accuracy: "exact" has to keep the promise of rnngrad, else its time does not count; "float32"
        may be off after the first steps; "none" has no result to look at.
    """

    name: str
    way: str
    accuracy: str = "exact"


class Case(NamedTuple):
    """Competitors that take turns on the same arrays, and a goal for the first two.

    goal: "≥ 2" times as fast as the second is the first; it takes "≤ 2" times as long as the
        second, or as many seconds where it is alone.
    check: `function option=value ...` of reference.py, which tells whether a result is right.
    code: the parts of src/rnngrad that are timed; when they change the case is measured again.
    """

    what: str  # {} stands for the size
    goal: str
    unit: str
    work: Work
    competitors: tuple[Competitor, ...]
    check: str | None = "curves"
    code: tuple[str, ...] = ("probe",)
    rounds: int = 5

    def quick(self) -> "Case":
        """So small that its times mean nothing."""
        T, H, batch = map(min, self.work[:3], (40, 16, 4))
        return self._replace(work=self.work._replace(steps=T, hidden=H, batch=batch), rounds=1)


CURVES = Competitor("rnngrad, float64", "rnngrad_ways.curves statistics=frobenius,column_sum")
FORWARD = Competitor("plain nn.LSTM forward, float32", "torch_ways.forward", "none")
EVERYBODY = (  # who computes the curves of all t: a line of the table and of the figure each
    CURVES,
    Competitor("JAX scan of jvp, float64", "jax_ways.curves dtype=float64"),
    Competitor("JAX scan of jvp, float32", "jax_ways.curves dtype=float32", "float32"),
    Competitor("torch.func.jacfwd, float32", "torch_ways.jacfwd_of_all_steps", "float32"),
    Competitor("TensorFlow, the question's way", "tensorflow_ways.gradients", "float32"),
    Competitor("the matrix products alone, float64", "torch_ways.products", "none"),
    FORWARD,
)
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
NOTHING = Work(1, 1, 1)


def _size(T: int, H: int, batch: int, goal: str) -> Case:
    unit = "times as fast as JAX in float64"
    return Case("curves at every t, {}", goal, unit, Work(T, H, batch, question=True), EVERYBODY)


def _cell(cell: str) -> Case:
    lstm = Competitor("LSTM", f"{CURVES.way} cell=lstm", "none")
    work = SHORT._replace(cell=cell)
    return Case(f"{cell.upper()}, {{}}", "≤ 0.6", "of the LSTM's time", work, (CURVES, lstm))


def _training(padding: str, goal: str) -> Case:
    ways = [f"study_ways.{name} padding={padding}" for name in ("training", "padded_training")]
    return Case(
        f"training, padding {padding}, {{}}", goal, "times as fast as padding everything",
        Work(1403, 200, 32), tuple(Competitor(way, way, "float32") for way in ways),
        f"gradients padding={padding}", code=("models", "data"),
    )  # fmt: skip


def _alone(what: str, goal: str, work: Work, way: str, check: str | None = "curves") -> Case:
    competitor = Competitor(way, f"rnngrad_ways.{way}", "exact" if check else "none")
    return Case(what, goal, "s", work, (competitor,), check)


CASES: dict[str, Case] = {
    **{"x".join(map(str, size)): _size(*size, goal) for size, goal in SIZES.items()},
    "padded": Case("padded comments, {}", "≤ 2", "plain forwards", PADDED, (CURVES, FORWARD)),
    "triangle": Case(
        "weight-gradient triangle, {}", "≥ 25", "times as fast as T backward passes", ONE,
        (
            Competitor("parts", "rnngrad_ways.triangle"),
            Competitor("passes", "torch_ways.backward_passes", "float32"),
        ),
        "triangle",
    ),
    "spectral": Case(
        "spectral norm at every t on top, {}", "≤ 1.5", "times as long", ONE,
        (Competitor("spectral", f"{CURVES.way},spectral"), CURVES),
    ),
    "busy": Case(
        "curves beside two busy processes, {}", "≤ 2.5", "times as long", SNIPPET,
        (Competitor("busy", f"{CURVES.way} busy=2"), CURVES),
    ),
    "rnn": _cell("rnn"),
    "gru": _cell("gru"),
    "snippet": _alone("README's jacobian_curves, {}", "≤ 3", SNIPPET, "curves"),
    "diagnose": _alone("README's diagnose, {}", "≤ 6", SNIPPET, "curves call=diagnose"),
    "lyapunov": _alone("all Lyapunov exponents, {}", "≤ 60", SNIPPET, "lyapunov", "exponents"),
    "compile": _alone("all loops, in a fresh cache folder", "≤ 5", NOTHING, "compiling", None),
    "training-pre": _training("pre", "≥ 6"),
    "training-none": _training("none", "≥ 12"),
    "study": Case(
        "make study, all stages", "≤ 270", "s", NOTHING,
        (Competitor("stages", "study_ways.stages", "none"),), None, code=(".",), rounds=1,
    ),
}  # fmt: skip
