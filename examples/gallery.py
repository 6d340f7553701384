"""How gradients pass through cells that torch has no module for, each in a few lines.

    python examples/gallery.py     draws examples/gallery/*.svg, and the page that shows them

Every cell is a function (state, x) -> state, which `rnngrad.jacobian_curves_of_step` takes. They
are untrained and read the same random inputs. A cell's docstring is what its figure teaches.
Index convention: x (batch, D), h and c (batch, H), weights (outputs, inputs) as in torch's modules.
"""

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, softplus

import rnngrad

STEPS, BATCH, D, H = 200, 1, 8, 24
HEAD = """Cells that torch has no module for, and what their curves teach. Each is a step, a
function of a state and an input; `curves(min_gru(keep=2))` asks
`rnngrad.jacobian_curves_of_step` about it. What they share stands at the end. `make gallery`
writes this page from [gallery.py](../gallery.py)."""
IMPORTS = """import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, softplus

import rnngrad

STEPS, BATCH, D, H = 200, 1, 8, 24"""
FOLDER = Path(__file__).with_suffix("")


class Cell(NamedTuple):
    """A step, the state it starts from, and the entry of the state that is looked at."""

    step: Callable[[Any, Tensor], Any]
    start: Any
    state: int | None = None


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def weights(units: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """W_x (units, D) and W_h (units, H), of variance scale^2 / (what is summed over)."""
    W_x = normal(units, D, seed=1, scale=D**-0.5)
    return W_x, normal(units, H, seed=2, scale=scale * H**-0.5)


def two_states() -> tuple[Tensor, Tensor]:
    return normal(BATCH, H, seed=3, scale=0.3), normal(BATCH, H, seed=4, scale=0.3)


def lstm(scale: float = 1.0, peephole: float = 0.0, squash: Any = torch.tanh) -> Cell:
    """c = f c + i g, h = o squash(c); with peepholes the gates see c, too."""
    W_x, W_h = weights(4 * H, scale)
    p_i, p_f, p_o = normal(3, H, seed=5, scale=peephole)

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = (x @ W_x.T + h @ W_h.T).chunk(4, dim=-1)
        new = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
        return (o + p_o * new).sigmoid() * squash(new), new

    return Cell(step, two_states(), state=1)


def layer_norm_lstm(scale: float = 1.0) -> Cell:
    """Layer normalisation takes the size of the recurrent weights out of the curve.

    With weights ten times as large the plain LSTM explodes; this one is the same, and it forgets
    far less than the plain one with weights as they are. Ba, Kiros and Hinton (2016).
    """
    W_x, W_h = weights(4 * H, scale)

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        a = layer_norm(x @ W_x.T, (4 * H,)) + layer_norm(h @ W_h.T, (4 * H,))
        i, f, g, o = a.chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * layer_norm(c, (H,)).tanh(), c

    return Cell(step, two_states(), state=1)


def peephole_lstm(size: float, scale: float = 1.0) -> Cell:
    """Gates that see c open a way from c to c that is neither the forget gate nor h.

    Where W_h is zero, the forget gates alone would set the rate; with peepholes they do not.
    Large ones keep the norm up with W_h; where that is zero, 6 decades are lost in place of 64.
    Gers and Schmidhuber (2000).
    """
    return lstm(scale, peephole=size)


def sigmoid_state_lstm() -> Cell:
    """The tutorials' variant, h = o sigmoid(c) in the place of h = o tanh(c).

    Its slope is at most 1/4, so that less comes back through h. Its h is positive throughout.
    """
    return lstm(squash=torch.sigmoid)


def min_gru(keep: float = 0.0) -> Cell:
    """Gates that see the input alone make J_t = prod_s (1 - z_s), a diagonal of numbers below 1.

    Nothing can explode, and the gate's bias, here -keep, sets the horizon. Feng et al. (2024).
    """
    (W_z, _), W_n = weights(H), normal(H, D, seed=6, scale=D**-0.5)

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = (x @ W_z.T - keep).sigmoid()
        return (1 - z) * h + z * (x @ W_n.T)

    return Cell(step, two_states()[0])


def slstm(input_scale: float = 1.0) -> Cell:
    """An exponential input gate lets one step outweigh all that came before.

    The larger the inputs, the less evenly the curve falls. It shows h = o c / n, since c and n are
    in units of exp(m), which keep exp in range. The state is (h, c, n, m). Beck et al. (2024).
    """
    W_x, W_h = weights(4 * H, 0.5)

    def step(state: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, ...]:
        h, c, n, m = state
        i, f, z, o = (input_scale * x @ W_x.T + h @ W_h.T).chunk(4, dim=-1)
        log_f = -softplus(-f)  # of a sigmoid forget gate
        new_m = torch.maximum(log_f + m, i)
        keep, write = (log_f + m - new_m).exp(), (i - new_m).exp()
        c, n = keep * c + write * z.tanh(), keep * n + write
        return o.sigmoid() * c / n, c, n, new_m

    h, c = two_states()
    return Cell(step, (h, c, torch.ones_like(c), torch.zeros_like(c)), state=0)


def lru(slowest: float = 0.99) -> Cell:
    """A linear diagonal recurrence has one curve for all inputs: J_t = Lambda^t.

    The slowest eigenvalue rules its tail; training begins where it is set. Complex numbers are
    pairs of real ones. Orvieto et al. (2023).
    """
    size = torch.linspace(0.5, slowest, H // 2).double()
    decay = torch.polar(size, torch.linspace(0, math.pi / 10, H // 2).double())
    B = torch.view_as_complex(normal(H // 2, D, 2, seed=1, scale=D**-0.5))
    gamma = (1 - size**2).sqrt()

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = decay * torch.view_as_complex(h) + gamma * (x.to(B.dtype) @ B.T)
        return torch.view_as_real(z)

    return Cell(step, normal(BATCH, H // 2, 2, seed=3))


def cornn(dt: float = 0.05, gamma: float = 2.0, epsilon: float = 1.0, scale: float = 1.0) -> Cell:
    """Damped, coupled oscillators: small steps of time keep the one-step Jacobians near identity.

    At dt = 0.05 two hundred steps take less than a decade off the norm, at dt = 0.5 ten decades:
    they span ten times the time, and a unit of time costs about a tenth of a decade.
    The state is (y, z = y'). Rusch and Mishra (2021).
    """
    W_x, W_y = weights(H, scale)
    W_z = normal(H, H, seed=7, scale=scale * H**-0.5)

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        y, z = state
        force = (y @ W_y.T + z @ W_z.T + x @ W_x.T).tanh() - gamma * y - epsilon * z
        z = z + dt * force
        return y + dt * z, z

    return Cell(step, two_states())


def echo_state(radius: float = 0.9, leak: float = 1.0, input_scale: float = 0.5) -> Cell:
    """A small change of the start is forgotten if the largest Lyapunov exponent is negative.

    A spectral radius below 1 is not needed, nor is its log the rate: inputs saturate tanh, and with
    them even a radius of 1.2 forgets, and one of 2 hardly. Jaeger (2001).
    """
    W_x, W = weights(H)
    W = W * radius / torch.linalg.eigvals(W).abs().max()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return (1 - leak) * h + leak * (h @ W.T + input_scale * x @ W_x.T).tanh()

    return Cell(step, two_states()[0])


# by the title: whose docstring it is shown with, and what is compared
GALLERY: dict[str, tuple[Callable[..., Cell], dict[str, Cell]]] = {
    "LayerNorm LSTM": (
        layer_norm_lstm,
        {
            "LayerNorm LSTM": layer_norm_lstm(),
            "LayerNorm LSTM, W_h x 10": layer_norm_lstm(10),
            "LSTM": lstm(),
            "LSTM, W_h x 10": lstm(10),
        },
    ),
    "Peephole LSTM": (
        peephole_lstm,
        {
            "no peepholes": lstm(),
            "peepholes": peephole_lstm(1),
            "peepholes x 3": peephole_lstm(3),
            "no peepholes, W_h = 0": lstm(0),
            "peepholes x 3, W_h = 0": peephole_lstm(3, scale=0),
        },
    ),
    "The tutorials' LSTM": (
        sigmoid_state_lstm,
        {"h = o tanh(c)": lstm(), "h = o sigmoid(c)": sigmoid_state_lstm()},
    ),
    "minGRU": (min_gru, {"keep 0": min_gru(), "keep 2": min_gru(2), "keep 4": min_gru(4)}),
    "sLSTM": (slstm, {"inputs x 1": slstm(), "x 4": slstm(4), "x 16": slstm(16)}),
    "LRU": (lru, {f"slowest {size}": lru(size) for size in (0.9, 0.99, 0.999)}),
    "coRNN": (cornn, {f"dt = {dt}": cornn(dt) for dt in (0.01, 0.05, 0.5)}),
    "Echo state network": (
        echo_state,
        {f"spectral radius {radius}": echo_state(radius) for radius in (0.5, 0.9, 1.2, 2.0)},
    ),
}


def curves(cell: Cell, steps: int = STEPS) -> rnngrad.JacobianCurves:
    """log10 of the norm of d state_t / d state_0, on random inputs."""
    x = normal(BATCH, steps, D, seed=8)
    return rnngrad.jacobian_curves_of_step(
        cell.step, x, cell.start, state=cell.state, statistics="frobenius"
    )


def figure_name(title: str) -> str:
    """Name the figure's file by the letters of the title."""
    return title.lower().replace(" ", "-").replace("'", "") + ".svg"


def page() -> str:
    """Write what each figure teaches, in the words of the docstrings, and the cell's own lines."""
    parts = [f"# Gallery\n\n{HEAD}\n"]
    for title, (function, _) in GALLERY.items():
        words, alt = " ".join((function.__doc__ or "").split()), f"log10 norms over {STEPS} steps"
        parts.append(f"## {title}\n\n{words}\n\n![{title}: {alt}]({figure_name(title)})\n")
        code = re.sub(r'\n    """.*?"""', "", inspect.getsource(function), count=1, flags=re.DOTALL)
        parts.append(f"```python\n{code}```\n")
    shared = "\n\n".join(map(inspect.getsource, (Cell, normal, weights, two_states, lstm, curves)))
    return "\n".join((*parts, f"## What they share\n\n```python\n{IMPORTS}\n\n\n{shared}```\n"))


def main() -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
    with mpl.rc_context({"svg.hashsalt": "gallery", "svg.fonttype": "none"}):
        for title, (_, cells) in GALLERY.items():
            found = {label: curves(cell) for label, cell in cells.items()}
            for label, each in found.items():
                end = each.log10_frobenius[:, -1]
                print(f"{title:20} {label:26} log10 after {STEPS} steps: {end.mean():8.2f}")
            rnngrad.compare(found)
            figure = plt.gcf()
            figure.savefig(FOLDER / figure_name(title), metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
