"""Who takes part. A competitor's module is imported in its own process only.

A module's function `prepare` makes what is timed from a problem. For all t at once ("forward", cost
linear in T, and "reverse", quadratic) it is `prepare(problem, steps)`, and what it returns, called,
gives the curves at the first `steps` steps. For one t at a time ("per step") it is
`prepare(problem)`, and it returns a pair: what has to be done once, and the value at a given t.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

Growth = Literal["forward", "reverse", "per step"]


class Curves(NamedTuple):
    """log10, (batch, steps) float64, -inf where a value is zero; None where there is none."""

    column_sum: np.ndarray | None = None
    frobenius: np.ndarray | None = None


class Competitor(NamedTuple):
    """One way to get the curves.

    bytes_per_step: held at once for every step, from (H, B); the number of steps is kept below
        what fits `MEMORY`.
    denormals: is torch left to keep denormal numbers? JAX and TensorFlow flush them to zero.
    """

    label: str
    module: str
    function: str
    growth: Growth
    needs: str = "torch"
    curves: bool = True
    headline: bool = False  # runs all steps at full size whatever that takes
    bytes_per_step: Callable[[int, int], int] = lambda H, B: 0
    denormals: bool = False


MEMORY = 4 * 2**30

PROBE, UNIT, FLOOR = "rnngrad", "forward", "floor"
COMPETITORS = {
    PROBE: Competitor("rnngrad", "probe", "curves", "forward", headline=True, denormals=True),
    "all_directions": Competitor(
        "rnngrad, no direction dropped",
        "probe",
        "all_directions",
        "forward",
        headline=True,
        denormals=True,
    ),
    UNIT: Competitor("plain nn.LSTM forward", "probe", "plain_forward", "forward", curves=False),
    FLOOR: Competitor(
        "the matrix products alone", "product_rate", "products", "forward", curves=False
    ),
    "jax_float64": Competitor(
        "JAX scan of jvp, float64", "jax_scan", "float64", "forward", "jax", headline=True
    ),
    "jax_float32": Competitor(
        "JAX scan of jvp, float32", "jax_scan", "float32", "forward", "jax", headline=True
    ),
    "vmap_jvp": Competitor(
        "torch.func vmap(jvp) of each step", "torch_forward", "vmap_jvp", "forward"
    ),
    "jacfwd": Competitor(
        "torch.func.jacfwd",
        "torch_forward",
        "jacfwd",
        "forward",
        bytes_per_step=lambda H, B: 16 * B * H * H,
    ),
    "jacrev": Competitor(
        "torch.func.jacrev",
        "torch_reverse",
        "jacrev",
        "reverse",
        bytes_per_step=lambda H, B: 64 * B * H * H,
    ),
    "autograd": Competitor("torch autograd for every t", "torch_reverse", "autograd", "per step"),
    "tensorflow_tensor": Competitor(
        "TensorFlow for every t, one graph",
        "tensorflow_loop",
        "t_as_tensor",
        "per step",
        "tensorflow",
    ),
    "tensorflow": Competitor(
        "TensorFlow, the question's way",
        "tensorflow_loop",
        "traced_per_t",
        "per step",
        "tensorflow",
    ),
}
