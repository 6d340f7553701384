"""Each cell of the gallery beside a closed form or autograd, and the page beside the cells."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import gallery
from gallery import GALLERY, Cell, D, H

STEPS = 6
CELLS = {label: cell for _, cells in GALLERY.values() for label, cell in cells.items()}


def inputs(steps: int = STEPS) -> Tensor:
    """Give what `gallery.curves` feeds: (time, batch, D)."""
    return gallery.normal(gallery.BATCH, steps, D, seed=8).transpose(0, 1)


def found(cell: Cell, steps: int = STEPS) -> np.ndarray:
    return gallery.curves(cell, steps).log10_frobenius[0]


@pytest.mark.parametrize("label", CELLS)
def test_curves_are_autograds(label: str):
    cell = CELLS[label]
    leaves, spec = pytree.tree_flatten(cell.start)
    looked_at = cell.state or 0

    def end(*leaves: Tensor) -> tuple[Tensor, ...]:
        state: Any = pytree.tree_unflatten(list(leaves), spec)
        for x in inputs():
            state = cell.step(state, x)
        return tuple(pytree.tree_leaves(state))

    J: Any = torch.autograd.functional.jacobian(end, tuple(leaves))
    parts = [J[looked_at][looked_at]] if cell.state is not None else [p for row in J for p in row]
    norm = math.sqrt(sum(float(part.square().sum()) for part in parts))
    assert found(cell)[-1] == pytest.approx(math.log10(norm), abs=1e-9)


def test_layer_norm_takes_the_size_of_the_recurrent_weights_out():
    one, ten = (found(gallery.layer_norm_lstm(scale), 40) for scale in (1, 10))
    np.testing.assert_allclose(ten, one, atol=0.02)  # but for the layer norm's eps
    plain, large = (found(gallery.lstm(scale), 40) for scale in (1, 10))
    assert np.abs(large - plain).max() > 5


def test_peepholes_are_a_way_from_c_to_c():
    """Without recurrent weights the Jacobian is diagonal: f + c f' p_f + g i' p_i."""
    cell = gallery.lstm(scale=0, peephole=2)
    p_i, p_f, _ = gallery.normal(3, H, seed=5, scale=2)
    W_x, _ = gallery.weights(4 * H)
    c, diagonal = cell.start[1], torch.ones(H).double()
    for x in inputs():
        i, f, g, _ = (x @ W_x.T).chunk(4, dim=-1)
        i, f, g = (i + p_i * c).sigmoid(), (f + p_f * c).sigmoid(), g.tanh()
        diagonal = diagonal * (f + c * f * (1 - f) * p_f + g * i * (1 - i) * p_i)
        c = f * c + i * g
    assert found(cell)[-1] == pytest.approx(float(diagonal.norm().log10()), abs=1e-12)


def test_min_gru_keeps_what_its_gate_leaves():
    W_z, _ = gallery.weights(H)
    kept = torch.stack([1 - (x @ W_z.T - 2).sigmoid() for x in inputs()]).prod(dim=0)
    assert found(gallery.min_gru(2))[-1] == pytest.approx(float(kept.norm().log10()), abs=1e-12)


def test_the_stabiliser_of_slstm_cancels_in_h():
    cell, (W_x, W_h) = gallery.slstm(4), gallery.weights(4 * H, 0.5)
    state = h, c, n, _ = cell.start
    for x in inputs():
        state = cell.step(state, x)
        i, f, z, o = (4 * x @ W_x.T + h @ W_h.T).chunk(4, dim=-1)
        c, n = f.sigmoid() * c + i.exp() * z.tanh(), f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        torch.testing.assert_close(state[0], h)


def test_lru_is_the_power_of_its_eigenvalues():
    t = torch.arange(1, STEPS + 1)
    size = torch.linspace(0.5, 0.99, H // 2).double()[:, None] ** t
    expected = (2 * size.square().sum(dim=0)).sqrt().log10()
    np.testing.assert_allclose(found(gallery.lru(0.99)), expected, atol=1e-12)


def test_cornn_without_coupling_is_a_power_of_the_oscillators_matrix():
    dt, gamma, epsilon = 0.1, 2.0, 1.0
    z = np.array([-dt * gamma, 1 - dt * epsilon])
    M = np.array([np.array([1, 0]) + dt * z, z])
    expected = np.log10(math.sqrt(H) * np.linalg.norm(np.linalg.matrix_power(M, STEPS)))
    assert found(gallery.cornn(dt, gamma, epsilon, 0))[-1] == pytest.approx(expected, abs=1e-12)


def test_an_echo_state_network_at_rest_is_a_power_of_its_weights():
    cell = gallery.echo_state(0.9, leak=0.3, input_scale=0)
    cell = cell._replace(start=torch.zeros_like(cell.start))
    _, W = gallery.weights(H)
    W = 0.9 * W / torch.linalg.eigvals(W).abs().max()
    M = 0.7 * torch.eye(H).double() + 0.3 * W
    J = torch.linalg.matrix_power(M, STEPS)
    assert found(cell)[-1] == pytest.approx(float(J.norm().log10()), abs=1e-9)


def test_the_page_says_what_the_cells_say_and_shows_each_figure():
    folder = Path(gallery.__file__).with_name("gallery")
    assert (folder / "README.md").read_text(encoding="utf-8") == gallery.page()
    assert {path.name for path in folder.glob("*.svg")} == {*map(gallery.figure_name, GALLERY)}
    labels = {n: cells for n, (_, cells) in GALLERY.items()}
    for name, cells in labels.items():
        text = (folder / gallery.figure_name(name)).read_text(encoding="utf-8")
        assert all(label in text for label in cells)


def test_the_pages_code_runs_by_itself():
    blocks = re.findall(r"```python\n(.*?)```", gallery.page(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "pasted"}
    for block in (blocks[-1], *blocks[:-1]):
        exec(block, names)
    pasted = names["curves"](names["min_gru"](keep=2)).log10_frobenius
    np.testing.assert_array_equal(pasted, gallery.curves(gallery.min_gru(2)).log10_frobenius)
