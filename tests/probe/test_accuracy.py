"""The public promise, and rows that are far apart, against products that lose no row.

The reference multiplies the one-step matrices of `rnngrad.trajectory` in NumPy, with a power of two
per row, and drops no direction.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_problems import CELLS, Array, product_curves, rows_of, set_weights, weights
from torch import Tensor, nn

import rnngrad


def assert_promise(found: rnngrad.JacobianCurves, expected: dict[str, Array], at: Array) -> None:
    """1e-9 of both norms; of a column sum while it is above 1e-2 of the norm; 1e-6 above 1e-6."""
    frobenius, sums, spectral = (expected[f"log10_{n}"] for n in NAMES)
    share = sums - frobenius
    assert relative(found.log10_frobenius[0], frobenius).max() < 1e-9
    assert relative(found.log10_spectral[0, at], spectral[at]).max() < 1e-9
    error = relative(found.log10_column_sum[0], sums)
    assert error[share > -2].max(initial=0) < 1e-9
    assert error[share > -6].max(initial=0) < 1e-6


NAMES = ("frobenius", "column_sum", "spectral")


def relative(found: Array, log10: Array) -> Array:
    """Errors; both -inf is none."""
    with np.errstate(invalid="ignore"):
        return np.where(found == log10, 0.0, np.abs(np.expm1(np.log(10) * (found - log10))))


def compare(module: nn.RNNBase, x: Tensor, initial: object, state: str, at: Array) -> None:
    """One example at every t; the spectral norm at the steps `at`, from 0."""
    found = rnngrad.jacobian_curves(module, x, initial, state=state, spectral_steps=at + 1)  # pyright: ignore[reportArgumentType]
    path = rnngrad.trajectory(module, x, initial)  # pyright: ignore[reportArgumentType]
    assert_promise(found, product_curves(path.jacobians(0), rows_of(module, state)), at)


def module_of(cell: str, features: int, hidden: int, kernel: str) -> nn.RNNBase:
    """A float32 module with torch's own weights, or orthogonal ones and an open forget gate."""
    kind, options = CELLS[cell]
    torch.manual_seed(0)
    module = kind(features, hidden, batch_first=True, **options)
    w = weights(module)
    with torch.no_grad():
        if kernel == "orthogonal":
            for block in w["weight_hh_l0"].split(hidden):
                nn.init.orthogonal_(block)
        if cell == "lstm":
            w["bias_ih_l0"][hidden : 2 * hidden] = 1
    return module


@pytest.mark.parametrize("kernel", ["torch", "orthogonal"])
@pytest.mark.parametrize(
    ("cell", "state"), [*((cell, "h") for cell in CELLS), ("lstm", "c"), ("lstm", "full")]
)
def test_1403_steps(cell: str, state: str, kernel: str):
    """Padding and then tokens: directions die, the sum of what is left passes through zero."""
    hidden = 24 if state == "full" else 40
    module = module_of(cell, 30, hidden, kernel)
    x = 5.7 * nn.functional.normalize(torch.randn(1, 1403, 30), dim=2)
    x[:, :400] = 0
    initial = torch.rand(1, 1, hidden)
    compare(module, x, (initial, initial) if cell == "lstm" else initial, state, np.arange(1403))


@pytest.mark.parametrize(
    ("cell", "state", "hidden"), [("lstm", "c", 100), ("gru", "h", 130), ("lstm", "full", 70)]
)
def test_columns_in_parts(cell: str, state: str, hidden: int):
    """So many units that threads share the columns of one example."""
    module = module_of(cell, 8, hidden, "torch")
    compare(module, torch.randn(1, 70, 8), None, state, np.arange(0, 70, 10))


def reset_network(strength: float, coupling: float) -> nn.LSTM:
    """8 units with long memory that feature 0 closes, and 8 that forget steadily."""
    torch.manual_seed(0)
    H, half = 16, 8
    module = nn.LSTM(2, H, batch_first=True).double()
    W = 0.1 * torch.randn(4 * H, H) / H**0.5
    blocks = W.unflatten(0, (4, H))
    blocks[:, :, :half] *= coupling
    blocks[:, :half, half:] *= coupling
    forget = torch.zeros(4 * H)
    forget[H : H + half], forget[H + half : 2 * H] = 6.0, 1.0
    weight = torch.zeros(4 * H, 2)
    weight[:, 1] = 0.3 * torch.randn(4 * H)
    weight[H : H + half, 0] = -strength
    set_weights(module, weight_hh_l0=W, weight_ih_l0=weight, bias_ih_l0=forget)
    return module


@pytest.mark.parametrize("coupling", [0.0, 1e-12, 1.0])
def test_a_reset_at_step_400(coupling: float):
    module, x = reset_network(1000, coupling), torch.randn(1, 500, 2).double()
    x[..., 0] = 0
    x[0, 400, 0] = 1
    compare(module, x, None, "c", np.arange(0, 500, 20))
    curve = rnngrad.jacobian_curves(module, x, state="c", statistics="frobenius").log10_frobenius
    assert curve[0, 399] > -5
    # what had been dropped, had it been dropped, is all that is left now
    assert curve[0, 400] < {0.0: -40, 1e-12: -10, 1.0: -0.5}[coupling]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    resets=st.lists(st.tuples(st.integers(0, 159), st.floats(0.1, 1.5)), max_size=4),
    strength=st.sampled_from([8.0, 60.0, 300.0, 1000.0]),
    coupling=st.sampled_from([0.0, 1e-9, 1e-2, 1.0]),
    state=st.sampled_from(["h", "c", "full"]),
)
def test_random_resets(
    resets: list[tuple[int, float]], strength: float, coupling: float, state: str
):
    x = torch.randn(1, 160, 2, generator=torch.Generator().manual_seed(1)).double()
    x[..., 0] = 0
    for step, size in resets:
        x[0, step, 0] = size
    compare(reset_network(strength, coupling), x, None, state, np.arange(0, 160, 10))


@settings(max_examples=25)
@given(
    cell=st.sampled_from(["rnn_tanh", "gru", "lstm"]),
    sizes=st.lists(st.integers(-120, 60), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_weights_of_any_size(cell: str, sizes: list[int], seed: int):
    """Every unit's incoming weights at a power of ten of its own; nothing saturates."""
    torch.manual_seed(seed)
    module = CELLS[cell][0](2, 5, batch_first=True).double()
    with torch.no_grad():
        own = 10.0 ** torch.tensor(sizes, dtype=torch.float64)
        weights(module)["weight_hh_l0"].unflatten(0, (-1, 5)).mul_(own[:, None])
    # h stays 0, and the sizes enter the derivative alone
    for name in ("bias_ih_l0", "bias_hh_l0"):
        nn.init.zeros_(weights(module)[name])
    x = torch.zeros(1, 40, 2).double()
    compare(module, x, None, "h", np.arange(40))


@pytest.mark.parametrize("drive", [-103.0, 23.0, 25.0, 190.0])
def test_saturated_units_beside_others(drive: float):
    """tanh'(190) is 4 exp(-380), and its square is below float64."""
    module = nn.RNN(1, 16, batch_first=True).double()
    weight = torch.zeros(16, 1)
    weight[:8] = drive
    set_weights(module, weight_hh_l0=torch.randn(16, 16) / 4, weight_ih_l0=weight)
    x = torch.zeros(1, 60, 1).double()
    x[0, ::7] = 1
    compare(module, x, None, "h", np.arange(60))
    x[:] = 1
    compare(module, x, None, "h", np.arange(60))


SPECTRA = {
    "all equal": torch.ones(90),
    "close to one another": 1 - 1e-6 * torch.arange(90),
    "two at the top": torch.cat((torch.tensor([1.0, 1 - 1e-12]), torch.full((88,), 0.1))),
    "rank one": nn.functional.one_hot(torch.tensor(0), 90),
    "zero": torch.zeros(90),
    "far apart": 10.0 ** -torch.arange(90),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("turned", [True, False])
def test_spectral_norm_of_many_directions(spectrum: str, turned: bool):
    """Singular values as they are, on the diagonal, and turned into all directions."""
    U, V = (torch.linalg.qr(torch.randn(90, 90).double())[0] for _ in range(2))
    A = torch.diag(SPECTRA[spectrum].double())
    A = U @ A @ V if turned else A
    found = rnngrad.jacobian_curves_of_step(
        lambda s, x: s @ A.T + x, torch.zeros(2, 6, 90).double(), torch.zeros(2, 90).double()
    )
    powers = torch.stack([torch.linalg.matrix_power(A, t) for t in range(1, 7)])
    expected = torch.linalg.matrix_norm(powers, 2).log10().numpy()
    assert relative(found.log10_spectral, np.tile(expected, (2, 1))).max() < 1e-9


def test_spectral_norm_of_entries_whose_squares_overflow():
    module = nn.RNN(1, 90, nonlinearity="relu", batch_first=True).double()
    set_weights(module, weight_hh_l0=1e80 * torch.eye(90).double(), bias_hh_l0=torch.ones(90))
    found = rnngrad.jacobian_curves(module, torch.zeros(1, 3, 1).double()).log10_spectral
    np.testing.assert_allclose(found, [[80, 160, 240]], rtol=1e-12)
