"""An LSTM layer in plain NumPy, forward and backward: to read, and to check autograd with.

    python examples/numpy_lstm.py     the part of each loss's gradient that each step brings

Index convention, the same letters as in the einsum strings:

    n  example, 0..N-1        t  step, 0..T-1 (step t leads from h[t-1], c[t-1] to h[t], c[t])
    d  input feature, 0..D-1  h  unit, 0..H-1
    g  column of the gates' arrays, 0..4H-1: H columns for each of i, f, o, g, in this order

Forward, with s the logistic function and * between arrays elementwise; h_0 is given, c_0 = 0:

    a = x Wx + h_prev Wh + b          (N, 4H), cut into a_i, a_f, a_o, a_g
    i = s(a_i)   f = s(a_f)   o = s(a_o)   g = tanh(a_g)
    c = f * c_prev + i * g
    h = o * tanh(c)

Backward: dy is short for dL/dy, the gradient of the loss with respect to y. c has two readers, its
own successor and h, so what they send back is added up:

    dc   = (from step t+1) + dh * o * (1 - tanh(c)^2)
    da_i = dc * g * i (1 - i)            da_f = dc * c_prev * f (1 - f)
    da_g = dc * i * (1 - g^2)            da_o = dh * tanh(c) * o (1 - o)
    dc_prev = dc * f                     dh_prev = da Wh^T
    dx = da Wx^T     dWx = sum_t x^T da     dWh = sum_t h_prev^T da     db = sum_(n,t) da

The derivatives are written with the gates' values, as autograd writes them. They are exactly zero
once a value rounds to 1, in float64 beyond a = 37 for s and 19 for tanh.

Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers, Schmidhuber and Cummins
(2000); the layout of the arrays is that of the university courses that teach it in NumPy. torch
keeps the gates in the order i, f, g, o, the weights transposed, and adds two biases.

Slips in published versions of this layer, for readers who compare:

- Cache keys swapped. The step packs its values in one order (or under one name) and the backward
  step unpacks them in another: i for f, h for c, new for old. All are (N, H), so nothing fails, and
  the gradient is wrong. Here the cache is a tuple with names.
- An undefined name. A template declares dh and dc and returns dprev_h and dprev_c; a loop over t
  writes to dx[:, i]; a loop stores under the name of one step's cache. It runs only after renaming.
- The wrong array for c. da_f needs the cell state *before* the step, tanh(c) and its derivative
  the one *after* it; the candidate g, often written as a c with a tilde, is neither.
- dc overwritten instead of added to. `dc = dh * o * (1 - tanh(c)^2)` alone forgets step t+1: the
  gradient then reaches back through h only, and the cell path, the point of an LSTM, is cut.
- dc or dh added to in place. `dc += ...` on an argument, or on a slice of the caller's array,
  changes the caller's gradient, and a second call gives another result.
- A derivative left out: i, f, o, g each need their own slope, each bias its own gate's da.
"""

from typing import NamedTuple

import numpy as np


class Weights(NamedTuple):
    """Wx (D, 4H), Wh (H, 4H), b (4H,); the columns are i, f, o, g."""

    Wx: np.ndarray
    Wh: np.ndarray
    b: np.ndarray


class Step(NamedTuple):
    """The values of one step that its backward step needs; x (N, D), others (N, H)."""

    x: np.ndarray
    h_prev: np.ndarray
    c_prev: np.ndarray
    i: np.ndarray
    f: np.ndarray
    o: np.ndarray
    g: np.ndarray
    c: np.ndarray
    h: np.ndarray


class Gradients(NamedTuple):
    """dL/dx (N, T, D), dL/dh_0 (N, H), dL/dWx (D, 4H), dL/dWh (H, 4H), dL/db (4H,)."""

    x: np.ndarray
    h0: np.ndarray
    Wx: np.ndarray
    Wh: np.ndarray
    b: np.ndarray


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), never exp of a positive number, which would overflow."""
    z = np.exp(-np.abs(a))
    return np.where(a >= 0, 1, z) / (1 + z)


def lstm_step_forward(
    x: np.ndarray, h_prev: np.ndarray, c_prev: np.ndarray, weights: Weights
) -> Step:
    """One step: x (N, D), h_prev and c_prev (N, H)."""
    a = x @ weights.Wx + h_prev @ weights.Wh + weights.b
    a_i, a_f, a_o, a_g = np.split(a, 4, axis=1)
    i, f, o, g = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), np.tanh(a_g)
    c = f * c_prev + i * g
    h = o * np.tanh(c)
    return Step(x, h_prev, c_prev, i, f, o, g, c, h)


def lstm_forward(x: np.ndarray, h0: np.ndarray, weights: Weights) -> tuple[np.ndarray, list[Step]]:
    """A whole sequence.

    Args:
        x: (N, T, D), floating point.
        h0: (N, H); the cell state starts at zero.
        weights: of the same dtype.

    Returns:
        h (N, T, H), every step's hidden state, and the steps for `lstm_backward`.

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check_forward(x, h0, weights)
    h, c = h0, np.zeros_like(h0)
    steps = []
    for t in range(x.shape[1]):
        steps.append(lstm_step_forward(x[:, t], h, c, weights))
        h, c = steps[-1].h, steps[-1].c
    return np.stack([step.h for step in steps], axis=1), steps


def lstm_step_backward(
    dh: np.ndarray, dc: np.ndarray, step: Step, weights: Weights
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step back, from all of dL/dh (N, H) and the part of dL/dc (N, H) from the next step.

    Returns da (N, 4H) and what this step sends to the one before, dh_prev and dc_prev, both (N, H).
    """
    _, _, c_prev, i, f, o, g, c, _ = step
    dc = dc + dh * o * (1 - np.tanh(c) ** 2)
    da_i = dc * g * i * (1 - i)
    da_f = dc * c_prev * f * (1 - f)
    da_o = dh * np.tanh(c) * o * (1 - o)
    da_g = dc * i * (1 - g**2)
    da = np.concatenate((da_i, da_f, da_o, da_g), axis=1)
    return da, da @ weights.Wh.T, dc * f


def gate_gradients(
    dh: np.ndarray, steps: list[Step], weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Backpropagation through time: da (N, T, 4H) of every step, and dL/dh_0 (N, H)."""
    da = np.empty((*dh.shape[:2], 4 * dh.shape[2]), dtype=dh.dtype)
    dh_next = dc_next = np.zeros_like(dh[:, 0])
    for t in reversed(range(len(steps))):
        dh_t = dh[:, t] + dh_next
        da[:, t], dh_next, dc_next = lstm_step_backward(dh_t, dc_next, steps[t], weights)
    return da, dh_next


def lstm_backward(dh: np.ndarray, steps: list[Step], weights: Weights) -> Gradients:
    """All gradients of a loss, summed over the examples.

    Args:
        dh: (N, T, H) the part of dL/dh that comes from outside the layer.
        steps: from `lstm_forward`, of the same weights.

    Raises:
        ValueError: dh does not have the shape of the layer's output.
    """
    _check_backward(dh, steps)
    da, dh0 = gate_gradients(dh, steps, weights)
    x, h_prev = _entering(steps)
    return Gradients(
        x=da @ weights.Wx.T,
        h0=dh0,
        Wx=np.einsum("ntd,ntg->dg", x, da),
        Wh=np.einsum("nth,ntg->hg", h_prev, da),
        b=np.einsum("ntg->g", da),
    )


def weight_gradient_parts(
    dh: np.ndarray, steps: list[Step], weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Which step do dL_T/dWx and dL_T/dWh come from?

    Args:
        dh: (N, T, H) with dL_T/dh_T at step T: each step has its own loss L_T.
        steps: from `lstm_forward`, of the same weights.

    Returns:
        Parts (N, T_loss, T_step, D, 4H) and (N, T_loss, T_step, H, 4H). Zero where the step comes
        after the loss. Summed over examples and steps they are the gradients of the single losses,
        and over the losses as well those of `lstm_backward`.

    Memory: N T^2 (D + H) 4H numbers; for more than a few steps see `rnngrad.weight_gradient_parts`.

    Raises:
        ValueError: dh does not have the shape of the layer's output.
    """
    _check_backward(dh, steps)
    x, h_prev = _entering(steps)
    parts_x, parts_h = [], []
    for T in range(len(steps)):
        alone = np.zeros_like(dh)
        alone[:, T] = dh[:, T]
        da, _ = gate_gradients(alone, steps, weights)
        parts_x.append(np.einsum("ntd,ntg->ntdg", x, da))
        parts_h.append(np.einsum("nth,ntg->nthg", h_prev, da))
    return np.stack(parts_x, axis=1), np.stack(parts_h, axis=1)


def _entering(steps: list[Step]) -> tuple[np.ndarray, np.ndarray]:
    """The values that the weights multiply at every step: x (N, T, D) and h_prev (N, T, H)."""
    return np.stack([s.x for s in steps], axis=1), np.stack([s.h_prev for s in steps], axis=1)


def _check_forward(x: np.ndarray, h0: np.ndarray, weights: Weights) -> None:
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}; expected (N, T, D) with T of at least 1")
    (N, _, D), H = x.shape, len(weights.Wh)
    expected = {"h0": (N, H), "Wx": (D, 4 * H), "Wh": (H, 4 * H), "b": (4 * H,)}
    for name, array in {"h0": h0, **weights._asdict()}.items():
        if array.shape != expected[name]:
            raise ValueError(f"{name} has shape {array.shape}; expected {expected[name]}")


def _check_backward(dh: np.ndarray, steps: list[Step]) -> None:
    N, H = steps[0].h.shape
    if dh.shape != (N, len(steps), H):
        raise ValueError(f"dh has shape {dh.shape}; expected {(N, len(steps), H)}, like h")


def main() -> None:
    """The tutorial's table: three inputs, three steps, one unit, all drawn from one seed."""
    N, D, T, H = 1, 3, 3, 1
    draw = np.random.RandomState(1).randn
    x, h0 = draw(N, T, D), draw(N, H)
    weights = Weights(draw(D, 4 * H), draw(H, 4 * H), draw(4 * H))
    _, steps = lstm_forward(x, h0, weights)
    parts, _ = weight_gradient_parts(draw(N, T, H), steps, weights)
    print("norm of the part of dL/dWx that each step brings")
    print("         " + "".join(f"{f'step {t + 1}':>10}" for t in range(T)))
    for loss in range(T):
        norms = np.linalg.norm(parts[0, loss, : loss + 1], axis=(1, 2))
        print(f"loss {loss + 1:<4}" + "".join(f"{norm:10.6f}" for norm in norms))


if __name__ == "__main__":
    main()
