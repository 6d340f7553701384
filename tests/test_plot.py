"""Pictures: the data that is drawn, how lines are told apart, and what a notebook shows."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import nn

import rnngrad

STEPS = 30


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


def batch(steps: int = STEPS) -> torch.Tensor:
    return torch.randn(5, steps, 3)


def lines(ax: Axes) -> dict[str, np.ndarray]:
    """Give what is drawn, by its name in the legend."""
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}


def test_curves_are_medians_with_a_band_beside_their_paths():
    lstm, lengths = nn.LSTM(3, 4, batch_first=True), [STEPS, STEPS, STEPS, STEPS, 10]
    curves = rnngrad.jacobian_curves(
        lstm, batch(), state="c", statistics=["frobenius", "hidden_path"], lengths=lengths
    )
    ax = curves.plot()
    total, cell, hidden = lines(ax).values()
    known = curves.log10_frobenius[:, :10]
    np.testing.assert_array_equal(total[:10], np.c_[1:11, np.median(known, axis=0)])
    np.testing.assert_array_equal(cell[:10, 1], np.median(curves.log10_cell_path[:, :10], axis=0))
    np.testing.assert_array_equal(hidden[:10, 1], np.median(curves.log10_hidden_path[:, :10], 0))
    assert len(total) == STEPS
    corners = ax.collections[0].get_paths()[0].vertices
    for t in range(10):
        there = np.asarray(corners)[np.asarray(corners)[:, 0] == t + 1, 1]
        assert (there.min(), there.max()) == (known[:, t].min(), known[:, t].max())
    assert ax.get_ylabel() == "log10 of |d c_t / d c_0|"


def test_exponents_are_an_array_with_a_picture():
    exponents = rnngrad.lyapunov_exponents(nn.GRU(3, 4, batch_first=True), batch())
    (line, zero) = exponents.plot().lines
    found = np.asarray(line.get_xydata())
    np.testing.assert_array_equal(found, np.c_[1:5, np.median(exponents, axis=0)])
    np.testing.assert_array_equal(zero.get_ydata(), 0)
    assert len(exponents[0].plot().lines[0].get_xydata()) == 4
    assert "data:image/png;base64," in exponents._repr_html_()
    for computed in (2 * exponents, exponents.sum(), exponents.sum(axis=1)):
        assert type(computed) in (np.ndarray, np.float64)


def test_column_sums_are_an_array_with_a_picture():
    sums = rnngrad.autograd_column_sums(nn.GRU(3, 4, batch_first=True), batch())
    drawn = np.asarray(sums.plot().lines[0].get_xydata())
    np.testing.assert_array_equal(drawn[:, 1], np.median(np.log10(sums), axis=0))
    assert len(sums[0].plot().lines[0].get_xydata()) == STEPS
    assert "data:image/png;base64," in sums._repr_html_()
    assert repr(sums) == f"ColumnSums({len(sums)}x{STEPS})"
    assert len(str(sums)) < 1000
    assert type(sums.mean(axis=0)) is np.ndarray


def test_what_is_exactly_zero_is_named_and_the_end_of_float32_drawn_where_it_matters():
    rnn = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.fill_(-1)
    x = torch.zeros(5, STEPS, 3)
    x[:, 0] = -10  # the units die at the second step
    drawn = lines(rnngrad.jacobian_curves(rnn, x).plot())
    assert list(drawn) == ["all paths (exactly 0 from step 2)"]
    near = rnngrad.jacobian_curves(nn.GRU(3, 4), batch()).plot()
    curves = rnngrad.jacobian_curves(nn.GRU(3, 4, batch_first=True), batch(300))
    far = curves.plot(curves.plot())
    labels = [line.get_label() for line in far.lines]
    assert labels.count("smallest normal float32") == 1
    assert "smallest normal float32" not in lines(near)
    end = lines(far)["smallest normal float32"]
    np.testing.assert_allclose(end[:, 1], np.log10(1.17549435e-38), rtol=1e-6)


def test_compared_cells_differ_by_dash_and_colour_and_keep_theirs():
    modules = {"gru": nn.GRU(3, 4), "other": nn.RNN(3, 4), "LSTM": nn.LSTM(3, 4)}
    curves = {name: rnngrad.jacobian_curves(m, batch()) for name, m in modules.items()}
    ax = rnngrad.compare(curves)
    assert list(lines(ax)) == list(modules)
    for name, line in lines(ax).items():
        np.testing.assert_array_equal(line[:, 1], np.median(curves[name].log10_frobenius, axis=0))
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    assert len({line.get_color() for line in ax.lines}) == 3
    alone = rnngrad.compare({"gru": curves["gru"]})
    assert alone.lines[0].get_color() == ax.lines[0].get_color()
    assert alone is not ax
    assert rnngrad.compare(curves, ax) is ax


def test_models_are_compared_by_their_layers():
    models = {"one": nn.LSTM(3, 4), "two": nn.GRU(3, 4, num_layers=2)}
    reaches = {name: rnngrad.gradient_reach(m, batch()) for name, m in models.items()}
    drawn = lines(rnngrad.compare(reaches))
    assert list(drawn) == ["one", "two: gru.0", "two: gru.1"]
    curves = reaches["two"].layers["gru.1"].curves.log10_frobenius
    np.testing.assert_array_equal(drawn["two: gru.1"][:, 1], np.median(curves, axis=0))


def test_what_has_no_norm_is_not_compared_and_a_path_alone_is_drawn():
    path = rnngrad.jacobian_curves(nn.LSTM(3, 4), batch(), state="c", statistics="hidden_path")
    assert set(lines(path.plot())) == {"cell path: forget gates alone", "hidden path: through h"}
    states = rnngrad.trajectory(nn.LSTM(3, 4), batch())
    for results, says in (
        ({}, "compare draws curves of one norm: hand over some results"),
        ({"path": path}, "path has none"),
        ({"states": states}, "states has none"),
    ):
        with pytest.raises(rnngrad.InputError, match=says):
            rnngrad.compare(results)


class First(nn.Module):
    """Gives the output of a recurrent module alone."""

    def forward(self, found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return found[0]


def test_a_diagnosis_shows_the_truth_what_autograd_finds_and_the_verdicts():
    diagnosis = rnngrad.diagnose(nn.GRU(3, 4, batch_first=True), batch(300))
    ax = diagnosis.plot()
    true, naive, flushed, *_ = [v for v in lines(ax).values() if len(v) == 300]
    np.testing.assert_array_equal(true[:, 1], np.median(diagnosis.log10_frobenius, axis=0))
    np.testing.assert_allclose(10 ** naive[:, 1], np.median(diagnosis.naive, axis=0), rtol=1e-9)
    assert flushed[-1, 1] == -np.inf
    words = sorted((text.get_position()[0], text.get_text().strip()) for text in ax.texts)
    assert [word for _, word in words] == ["alive", "decayed", "underflow"]
    for step, word in words:
        first = diagnosis.first_steps(word)
        assert first.min() <= step <= first.max()
    # where names would cover one another, that of the longest stretch stays
    longer = rnngrad.diagnose(nn.GRU(3, 4, batch_first=True), batch(4000)).plot()
    assert [text.get_text().strip() for text in longer.texts] == ["underflow"]


def test_one_statistic_is_compared_and_named():
    x, rnn = batch(), nn.RNN(3, 4, batch_first=True)
    norm, column_sum = (
        rnngrad.jacobian_curves(rnn, x, statistics=s) for s in ("frobenius", "column_sum")
    )
    losses = rnngrad.loss_gradient_curves(rnn, x, torch.ones(5, STEPS, 4))
    assert column_sum.plot().get_ylabel() == "log10 of column sum of d h_t / d h_0"
    for other, name in ((column_sum, "log10_column_sum"), (losses, "log10_h")):
        with pytest.raises(rnngrad.InputError, match=f"a has log10_frobenius, b has {name}"):
            rnngrad.compare({"a": norm, "b": other})


def test_the_median_of_two_examples_is_not_zero_where_one_is():
    rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False, batch_first=True)
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.fill_(1)
    x = torch.ones(2, 6, 1)
    x[1, 2] = -99
    assert list(lines(rnngrad.jacobian_curves(rnn, x).plot())) == ["all paths"]


def test_a_triangle_shows_what_each_step_adds_in_the_examples_in_which_it_counts():
    gru, G = nn.GRU(3, 4, batch_first=True), torch.ones(5, STEPS, 4)
    parts = rnngrad.weight_gradient_parts(gru, batch(), G, lengths=[STEPS, 9, 9, 9, 9])
    image = np.asarray(parts.plot(weight="weight_ih_l0").images[0].get_array())
    longest = parts["weight_ih_l0"][0]
    shown = longest / longest.max(axis=1, keepdims=True)
    np.testing.assert_allclose(np.tril(10**image)[9:], shown[9:], rtol=1e-9)


def test_losses_triangle_and_gates():
    lstm, x = nn.LSTM(3, 4, batch_first=True), batch()
    losses = rnngrad.loss_gradient_curves(lstm, x, torch.ones(5, STEPS, 4))
    drawn = lines(losses.plot())
    np.testing.assert_array_equal(drawn["|dL/dh_t|"][:, 1], np.median(losses.log10_h, axis=0))
    np.testing.assert_array_equal(drawn["|dL/dc_t|"][:, 1], np.median(losses.log10_c, axis=0))

    parts = rnngrad.weight_gradient_parts(lstm, x, torch.ones(5, STEPS, 4), reduce="log10_norm")
    with pytest.raises(rnngrad.InputError, match="weight='nix': use one of weight_ih_l0"):
        parts.plot(weight="nix")
    image = parts.plot(weight="weight_ih_l0").images[0]
    shown, median = np.asarray(image.get_array()), np.median(parts["weight_ih_l0"], axis=0)
    assert (shown[np.triu_indices(STEPS, 1)] != shown[np.triu_indices(STEPS, 1)]).all()  # NaN
    below = np.tril_indices(STEPS)
    expected = median - median.max(axis=1, keepdims=True)
    np.testing.assert_allclose(shown[below], expected[below], rtol=1e-12)
    for reduce in ("norm", "none"):  # the same picture
        same = rnngrad.weight_gradient_parts(lstm, x, torch.ones(5, STEPS, 4), reduce=reduce)
        array = np.asarray(same.plot(weight="weight_ih_l0").images[0].get_array())
        np.testing.assert_allclose(array[below], expected[below], rtol=0, atol=1e-12)
    curve = rnngrad.weight_gradient_parts(lstm, x, torch.ones(5, STEPS, 4), reduce="curve")
    added = np.median(curve["bias_hh_l0"], axis=0)
    np.testing.assert_array_equal(lines(curve.plot())["bias_hh_l0"][:, 1], added)

    last = torch.zeros(5, STEPS, 4)
    last[:, -1] = 1  # of a single loss the triangle would be one row
    single = rnngrad.weight_gradient_parts(lstm, x, last).plot()
    curve = rnngrad.weight_gradient_parts(lstm, x, last, reduce="curve").plot()
    for name, drawn in lines(curve).items():
        np.testing.assert_allclose(lines(single)[name], drawn, atol=1e-9)

    path = rnngrad.trajectory(lstm, x)
    drawn = lines(path.plot())
    assert list(drawn) == ["i", "f", "g", "o"]
    assert drawn["f"][7, 1] == np.median(path.gates["f"][:, 7])
    assert list(lines(rnngrad.trajectory(nn.RNN(3, 4), x).plot())) == ["h"]


def test_a_model_is_three_panels_given_a_loss_and_one_without():
    gru, x = nn.GRU(3, 4, num_layers=2, batch_first=True), batch()
    reach = rnngrad.gradient_reach(gru, x, loss=lambda output: output[0].sum())
    states, losses, weights = np.ravel(np.asarray(reach.plot()))
    layer = reach.layers["gru.1"]
    assert layer.loss_gradients is not None
    for ax, values in (
        (states, layer.curves.log10_frobenius),
        (losses, layer.loss_gradients.log10_h),
        (weights, layer.learned_at),
    ):
        assert list(lines(ax)) == ["gru.0", "gru.1"]
        np.testing.assert_array_equal(lines(ax)["gru.1"][:, 1], np.median(values, axis=0))
    given = plt.figure().subplots()
    assert reach.plot(given) is given
    assert list(lines(given)) == ["gru.0", "gru.1"]
    assert list(lines(rnngrad.gradient_reach(gru, x).layers["gru.0"].plot())) == ["gru.0"]


def test_the_legend_of_a_model_names_each_layer_once():
    model = nn.Sequential(nn.GRU(3, 4, batch_first=True), First(), nn.LSTM(4, 4, num_layers=2))
    reach = rnngrad.gradient_reach(model, batch(), loss=lambda output: output[0].sum())
    ax = np.ravel(np.asarray(reach.plot()))[0]
    assert all(panel.get_legend() is None for panel in ax.figure.axes)
    (legend,) = ax.figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:4] == ["dotted: forget gates alone", "0", "2.0", "2.1"]
    assert len(ax.lines) >= 5


def test_names_that_begin_with_an_underscore_stand_in_the_legend():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self._a = nn.LSTM(3, 4), nn.LSTM(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._a(self.a(x)[0])[0]

    reach = rnngrad.gradient_reach(Model(), torch.randn(5, 2, 3), loss=torch.sum)
    (legend,) = np.ravel(np.asarray(reach.plot()))[0].figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()[1:3]] == ["a", "_a"]
    compared = rnngrad.compare({"_old": reach.layers["_a"].curves})
    assert compared.get_legend_handles_labels()[1] == [" _old"]


def test_a_notebook_shows_table_and_picture_and_no_window_stays_open():
    reach = rnngrad.gradient_reach(nn.LSTM(3, 4), batch())
    page = reach._repr_html_()
    assert str(reach).splitlines()[-1] in page
    picture = page.split("base64,")[1].split('"')[0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert not plt.get_fignums()
    assert repr(reach.layers["lstm"]).startswith("LayerReach(name='lstm', diagnosis=")
    assert len(repr(reach.layers["lstm"])) < 300


def test_every_result_is_short_in_a_terminal_and_whole_in_a_notebook():
    gru, x = nn.GRU(3, 4, batch_first=True), torch.randn(2, 1000, 3)
    curves = rnngrad.jacobian_curves(gru, x, statistics=["frobenius"])
    losses = rnngrad.loss_gradient_curves(gru, x, torch.ones(2, 1000, 4))
    assert repr(curves) == "JacobianCurves(state='h', layer=0, log10_frobenius=2x1000)"
    assert "dtype=torch.float32" in repr(rnngrad.diagnose(gru, x))
    assert repr(losses) == "LossGradientCurves(layer=0, log10_h=2x1000)"
    parts = rnngrad.weight_gradient_parts(gru, x[:, :9], torch.ones(2, 9, 4))
    assert repr(parts).startswith("WeightGradientParts(weight_ih_l0=2x9x9, ")
    for result in (curves, losses, parts, rnngrad.trajectory(gru, x), rnngrad.diagnose(gru, x)):
        assert len(repr(result)) < 500
        assert 5 < str(result).count("\n") < 20
        assert len(str(result)) < 1000
        assert "<pre " in result._repr_html_()
    last = str(curves).splitlines()[-1].split()
    assert last == ["1000", f"{np.median(curves.log10_frobenius[:, -1]):+.2f}"]
    values = str(losses).splitlines()[-1].split()
    assert float(values[1]) == pytest.approx(np.median(losses.log10_h[:, -1]), abs=0.005)


@pytest.mark.parametrize("reduce", ["norm", "log10_norm", "none", "curve"])
def test_the_table_of_weights_tells_what_each_step_adds_to_the_last_loss(reduce: Any):
    rnn, x, lengths = nn.RNN(3, 4, batch_first=True), torch.randn(3, 9, 3), [4, 9, 6]
    parts = partial(rnngrad.weight_gradient_parts, rnn, x, torch.ones(3, 9, 4), lengths=lengths)
    rows = [line.split() for line in str(parts(reduce=reduce)).splitlines()[3:]]
    assert rows[0] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    found = {int(step): [float(value) for value in values] for step, *values in rows[2:]}
    own = parts(reduce="log10_norm" if reduce != "curve" else "curve")
    for n, name in enumerate(rows[0]):
        of_last = own[name]
        if reduce != "curve":
            of_last = of_last[range(3), [n - 1 for n in lengths]]
        assert found[9][n] == pytest.approx(of_last[1, 8], abs=0.006)
        assert found[3][n] == pytest.approx(np.median(of_last[:, 2]), abs=0.006)


def test_the_table_of_a_trajectory_tells_the_gates():
    lstm, x = nn.LSTM(3, 4), torch.randn(9, 2, 3)
    path = rnngrad.trajectory(lstm, x, lengths=[5, 9])
    _, _, title, names, *_, last = str(path).splitlines()
    assert title == "activations, medians over units and examples"
    assert names.split() == ["i", "f", "g", "o"]
    medians = [np.median(gate[1, 8]) for gate in path.gates.values()]
    assert [float(value) for value in last.split()[1:]] == pytest.approx(medians, abs=0.006)


def test_pictures_fit_on_axes_of_ones_own():
    figure, axes = plt.subplots(2, 4)
    x, many = batch(), {f"layer {n}": nn.GRU(3, 4) for n in range(8)}
    curves = {name: rnngrad.jacobian_curves(gru, x) for name, gru in many.items()}
    for ax in axes.flat:
        ax.set(xscale="log", yscale="symlog")
    rnngrad.compare(curves, axes[0, 0])
    rnngrad.diagnose(nn.LSTM(3, 4), x).plot(axes[0, 1])
    parts = rnngrad.weight_gradient_parts(nn.GRU(3, 4), x, torch.ones(5, STEPS, 4))
    parts.plot(axes[0, 2])
    rnngrad.gradient_reach(nn.LSTM(3, 4), x, loss=lambda output: output[0].sum()).plot(axes[0, 3])
    figure.canvas.draw()
    legend = axes[0, 0].get_legend().get_window_extent()
    assert legend.y1 > axes[0, 0].get_window_extent().y0  # not below the axes
    assert "\n" not in axes[0, 3].get_ylabel()


def test_long_names_take_several_lines():
    curves = rnngrad.jacobian_curves(nn.GRU(3, 4), batch())
    long = {f"model.{'encoder.' * 9}{end}": curves for end in ("one", "two")}
    names = [*lines(rnngrad.compare(long | {"": curves}))]
    assert [name.replace("\n", "") for name in names] == [*long, " "]
    assert max(len(line) for name in names for line in name.splitlines()) == 40


def test_curves_of_no_step_have_an_empty_picture():
    lstm, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    nowhere = rnngrad.jacobian_curves(lstm, x, statistics="spectral", spectral_steps=[])
    assert not nowhere.plot().lines
    assert "log10_spectral=2x5" in str(nowhere)
    assert "<pre " in nowhere._repr_html_()


@pytest.mark.parametrize("reduce", ["norm", "none"])
@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_parts_whose_squares_leave_float64_are_shown(reduce: Any, scale: float):
    rnn: Any = nn.RNN(1, 1, nonlinearity="relu", bias=False).double()
    with torch.no_grad():
        rnn.weight_hh_l0.fill_(scale)
        rnn.weight_ih_l0.fill_(1.0)
    last = torch.zeros(3, 1, 1).double()
    last[-1] = 1
    x = torch.tensor([1.0, 0.0, 0.0]).double()[:, None, None]
    parts = rnngrad.weight_gradient_parts(rnn, x, last, reduce=reduce)
    (first, *_) = str(parts).splitlines()[5:]
    assert first.split()[:2] == ["1", f"{2 * np.log10(scale):+.2f}"]


def test_a_notebook_goes_on_showing_figures(tmp_path: Path):
    """A notebook loads its backend, which turns figures on, when the first one is drawn."""
    backend = "import matplotlib\nfrom matplotlib.backends.backend_agg import *\n"
    backend += "from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas\n"
    (tmp_path / "late.py").write_text(f"{backend}matplotlib.interactive(True)\n")
    code = "import matplotlib, rnngrad, torch\n"
    code += "rnngrad.lyapunov_exponents(torch.nn.GRU(2, 2), torch.zeros(9, 1, 2))._repr_html_()\n"
    code += "assert matplotlib.is_interactive()"
    environment = os.environ | {"MPLBACKEND": "module://late", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_names_of_many_layers_lie_below_the_curves():
    models = {"one": nn.GRU(3, 4, num_layers=4), "other": nn.LSTM(3, 4, num_layers=4)}
    reaches = {name: rnngrad.gradient_reach(model, batch()) for name, model in models.items()}
    axes: Any = rnngrad.compare(reaches)
    axes.figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
