"""Pictures of the results: log10 over the steps, the end of float32, bands over examples.

Lines differ by colour (Okabe and Ito's, which colour-blind readers can tell apart) and by dash.
matplotlib is imported when the first picture is drawn.
"""

import base64
import html
import io
import itertools
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from rnngrad.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Style = tuple[str, Any]  # colour and dashes

NEUTRAL = "#808080"  # is seen on black as well
FAINT: dict[str, Any] = {"color": NEUTRAL, "alpha": 0.3}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (2, 1)), (0, (8, 2)))
STYLES: list[Style] = [(COLOURS[n % 6], DASHES[(n + n // 6) % 6]) for n in range(36)]
CELLS = {"lstm": 0, "rnn": 1, "gru": 2}  # each cell has its own style wherever it is compared
WIDTH, HEIGHT = 6.4, 3.4  # inches
BAND = 0.1, 0.9  # quantiles over examples
FLOAT32_NORMAL = float(np.log10(np.finfo(np.float32).smallest_normal))
END = "smallest normal float32"
NEAR = 12  # the end of float32 is drawn if a curve comes within so many decades of it
FAINTEST = -4  # log10 of a part beside the largest of its row, below which all look alike
TABLE_ROWS = 8
MOST_PANELS = 12  # layers of a heat map
MOST_INSIDE = 6  # names of a legend; more would lie across the curves
NAME_HEIGHT = 0.19  # inches of a row of names
LETTER = 0.08  # inches, its width
LONGEST = 40  # letters of a line in a legend
DERIVATIVES = {"h": "d h_t / d h_0", "c": "d c_t / d c_0", "full": "d state_t / d state_0"}


class Pictured:
    """A result with `plot`, a short repr, and both table and picture in a notebook."""

    _title: ClassVar = "log10, medians over examples"
    _columns: Any  # the table's columns by name: rows (n, time), NaN where unknown

    def __repr__(self) -> str:
        own = self if isinstance(self, Mapping) else vars(self)
        known = ", ".join(f"{name}={_short(v)}" for name, v in own.items() if v is not None)
        return f"{type(self).__name__}({known})"

    def __str__(self) -> str:
        """Give the repr and a table, the medians at some steps."""
        import pandas as pd

        columns = {name: _median(rows) for name, rows in self._columns().items()}
        table = pd.DataFrame(columns).rename(index=lambda t: t + 1).rename_axis("step")
        table = table.dropna(how="all").dropna(axis=1, how="all")
        if table.empty:
            return repr(self)
        some = np.unique(np.geomspace(1, len(table), TABLE_ROWS).round().astype(int)) - 1
        text = table.iloc[some].to_string(float_format="{:+.2f}".format)
        return f"{self!r}\n\n{self._title}\n{text}"

    def _repr_html_(self) -> str:
        import matplotlib.pyplot as plt

        png = io.BytesIO()
        plt.draw_if_interactive()  # a notebook's backend, loaded in the block, would stay off
        with plt.ioff():
            figure = np.ravel(cast("Any", self).plot())[0].figure
            figure.savefig(png, format="png", dpi=100)
            plt.close(figure)
        picture = f'<img src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
        style = "font-family: monospace; white-space: pre"  # pages made of notebooks have others
        return f'<pre style="{style}">{html.escape(str(self))}</pre>{picture}'


class PicturedArray(np.ndarray):
    """An array (batch, n) with `plot`; arrays computed from it are plain ones."""

    _repr_html_ = Pictured._repr_html_

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_short(self)})"

    def __str__(self) -> str:
        return np.array2string(np.asarray(self), threshold=TABLE_ROWS)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)


class Exponents(PicturedArray):
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the exponents, medians and bands over examples, on axes that it returns."""
        axes = _axes(ax)
        _band(axes, np.atleast_2d(np.asarray(self)), "", STYLES[0])
        axes.axhline(0, color=NEUTRAL, lw=0.9)
        axes.set(xlabel="exponent, from the largest", ylabel="nats per step")
        _grid(axes)
        return axes


class ColumnSums(PicturedArray):
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw their log10, medians and bands over examples, on axes that it returns."""
        with np.errstate(divide="ignore"):
            shown = np.log10(np.atleast_2d(np.asarray(self)))
        return _draw(ax, {"as autograd returns it": shown}, "log10 of the column sum")


def long_form(label: str, curves: dict[str, np.ndarray]) -> "pd.DataFrame":
    """Columns example, step (from 1), `label` and log10 of curves (batch, time)."""
    import pandas as pd

    values, names = np.stack(list(curves.values())), np.array(list(curves), dtype=object)
    n, b, t = found = np.nonzero(~np.isnan(values))
    return pd.DataFrame({"example": b, "step": t + 1, label: names[n], "log10": values[found]})


def _short(value: Any) -> str:
    if hasattr(value, "shape"):
        return "x".join(map(str, value.shape)) or "scalar"
    if isinstance(value, Mapping):
        return "{" + ", ".join(map(str, value)) + "}"
    kind = type(value).__name__
    return repr(value) if isinstance(value, str | int | float) or kind == "dtype" else kind


def span(values: np.ndarray, digits: str, form: str = "{}", absent: str = "") -> str:
    """Write the smallest and the largest number, and how many examples have none (NaN)."""
    known = values[~np.isnan(values)]
    if not len(known):
        return absent or "-"
    ends = dict.fromkeys(f"{value:{digits}}" for value in (known.min(), known.max()))
    none = f" ({len(values) - len(known)} of {len(values)}: {absent})"
    return form.format(" .. ".join(ends)) + (none if absent and len(known) < len(values) else "")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Set rows of text with their columns one below the other; a cell may hold several lines."""
    cells = (map(str.splitlines, row) for row in rows)
    lines = [line for row in cells for line in itertools.zip_longest(*row, fillvalue="")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def compare(results: Mapping[str, Pictured], ax: "Axes | None" = None) -> "Axes":
    """Draw curves of several networks in one picture, by the names that the legend shall have.

    Args:
        results: what `rnngrad.jacobian_curves`, `diagnose`, `loss_gradient_curves` or
            `gradient_reach` return. For losses it draws dL/dh, for a model the state of each layer.
        ax: matplotlib's axes, which are returned; None makes new ones.

    Examples:
        >>> import torch, rnngrad
        >>> x = torch.zeros(2, 5, 3)
        >>> modules = {"lstm": torch.nn.LSTM(3, 4), "gru": torch.nn.GRU(3, 4)}
        >>> curves = {name: rnngrad.jacobian_curves(m, x) for name, m in modules.items()}
        >>> [line.get_label() for line in rnngrad.compare(curves).lines]
        ['lstm', 'gru']
    """
    if not (isinstance(results, Mapping) and all(isinstance(name, str) for name in results)):
        raise TypeError("results must be a dict from names, str, to results")
    found: dict[str, Any] = {}
    for name, result in results.items():
        layers = getattr(result, "layers", {name: result})
        for own, layer in layers.items():
            found[f"{name}: {own}" if len(layers) > 1 else name] = getattr(layer, "curves", layer)
    kinds = {name: _main(result) for name, result in found.items()}
    if len({*kinds.values()}) != 1 or "" in kinds.values():
        told = ", ".join(f"{name} has {kind or 'none'}" for name, kind in kinds.items())
        raise InputError(f"compare draws curves of one norm: {told or 'hand over some results'}")
    shown = {_visible(name): getattr(result, kinds[name]) for name, result in found.items()}
    return _draw(ax, shown, f"log10 of {_name(*found.values())}")


def draw_curves(curves: Any, ax: "Axes | None" = None) -> "Axes":
    """Draw the Jacobian's norm beside its cell path and hidden path, on axes that it returns."""
    shown = {
        "all paths": getattr(curves, _main(curves), None),
        "cell path: forget gates alone": curves.log10_cell_path,
        "hidden path: through h": curves.log10_hidden_path,
    }
    styles = dict(zip(shown, [STYLES[0], (NEUTRAL, ":"), STYLES[3]], strict=True))
    return _draw(ax, shown, f"log10 of {_name(curves)}", styles)


def draw_diagnosis(diagnosis: Any, ax: "Axes | None" = None) -> "Axes":
    """Draw the true size, what autograd makes of it, and the commonest verdicts."""
    dtype = str(diagnosis.dtype).removeprefix("torch.")
    with np.errstate(divide="ignore"):
        naive, flushed = np.log10(diagnosis.naive), np.log10(diagnosis.naive_flushed)
    shown = {"true norm": diagnosis.log10_frobenius, f"autograd, {dtype}: column sum": naive}
    shown["the same, flushed to zero"] = flushed
    axes, commonest = _draw(ax, shown, f"log10 of {_name(diagnosis)}"), [""]
    for column in diagnosis.verdict.T:
        names, counts = np.unique(column[column != ""], return_counts=True)
        commonest.append(str(names[counts.argmax()]) if len(names) else commonest[-1])
    starts = [t for t in range(1, len(commonest)) if commonest[t] != commonest[t - 1]]
    letter = LETTER * len(commonest) * axes.figure.dpi / axes.bbox.width  # in steps
    for t, following in zip(starts, [*starts[1:], np.inf], strict=True):
        axes.axvline(t, lw=1.2, **FAINT)
        if following - t >= letter * len(commonest[t]):  # its name has room
            place = axes.get_xaxis_transform()
            axes.text(t, 1.01, f" {commonest[t]}", fontsize="small", transform=place)
    return axes


def draw_losses(curves: Any, ax: "Axes | None" = None) -> "Axes":
    """Draw dL/dh and dL/dc at every step."""
    shown = {"|dL/dh_t|": curves.log10_h, "|dL/dc_t|": curves.log10_c}
    return _draw(ax, shown, "log10 of the loss gradient")


def draw_trajectory(trajectory: Any, ax: "Axes | None" = None) -> "Axes":
    """Draw the gates, or h of a cell without any; bands over units and examples."""
    return _draw(ax, columns_of_trajectory(trajectory), "activation")


def columns_of_trajectory(trajectory: Any) -> dict[str, np.ndarray]:
    """Give the gates, or h of a cell without any; a row for each unit of each example."""
    gates = trajectory.gates or {"h": trajectory.h[:, 1:]}
    shown = {n: np.where(trajectory.real[..., None], v, np.nan) for n, v in gates.items()}
    return {n: np.moveaxis(v, 2, 1).reshape(-1, v.shape[1]) for n, v in shown.items()}


def draw_parts(parts: Any, ax: "Axes | None" = None, weight: str = "weight_hh_l0") -> "Axes":
    """Draw one weight's triangle, each row beside its largest part.

    For a single loss, or where its losses are summed, it draws the curves of all weights. For
    several examples it draws medians over those in which a step adds something.
    """
    if weight not in parts and parts.reduce != "curve":
        raise InputError(f"weight={weight!r}: use one of {', '.join(parts)}")
    triangles = None if parts.reduce == "curve" else _log10_of_parts(parts, weight)
    if triangles is None or (triangles > -np.inf).any(axis=(0, 2)).sum() < 2:
        return _draw(ax, columns_of_parts(parts), "log10 of what step t adds")
    # a step that does not count in an example has no part of it
    known = np.where(triangles > -np.inf, triangles, np.nan).reshape(len(triangles), -1)
    found = _median(known).reshape(triangles.shape[1:])
    shown = found - np.fmax.reduce(found, axis=1, keepdims=True)
    axes, end = _axes(ax), len(found) + 0.5
    look = {"cmap": "cividis", "aspect": "auto", "interpolation": "nearest"}
    picture = axes.imshow(shown, vmin=FAINTEST, vmax=0, extent=(0.5, end, end, 0.5), **look)
    axes.set(xlabel=f"step t at which {weight} is used", ylabel="step T of the loss")
    _whole_ticks(axes.xaxis, axes.yaxis)
    axes.figure.colorbar(picture, ax=axes, extend="min", label="log10, beside the row's largest")
    return axes


def columns_of_parts(parts: Any) -> dict[str, np.ndarray]:
    """Give by weight what each step adds, to the last of many losses' gradient."""
    columns = {name: _log10_of_parts(parts, name) for name in parts}
    if parts.reduce == "curve":
        return columns
    for name, triangle in columns.items():
        steps = np.arange(triangle.shape[1])
        last = (steps * (triangle > -np.inf).any(axis=2)).max(axis=1)
        of_last = triangle[np.arange(len(last)), last]
        columns[name] = np.where(steps <= last[:, None], of_last, np.nan)
    return columns


def _log10_of_parts(parts: Any, weight: str) -> np.ndarray:
    """Give log10 of the norms of one weight's parts, whatever they were reduced to."""
    found = parts[weight]
    if parts.reduce in ("log10_norm", "curve"):
        return found
    found = found.reshape(*found.shape[:3], -1)
    size = np.abs(found).max(axis=3, keepdims=True)  # squares would leave the range of float64
    with np.errstate(divide="ignore"):
        norms = np.linalg.norm(found / np.where((size > 0) & (size < np.inf), size, 1), axis=3)
        return np.log10(norms) + np.log10(size[..., 0])


def draw_layers(reach: Any, ax: "Axes | None" = None) -> "Axes | np.ndarray":
    """Draw the states of all layers and, given a loss, two panels of what it sends back.

    On given axes it draws the states alone.
    """
    layers = {_visible(name): layer for name, layer in reach.layers.items()}
    states, styles = {}, _styles(layers)
    for name, v in layers.items():
        if v.curves.log10_cell_path is not None:
            path = f"_{name}" if states else "dotted: forget gates alone"
            states[path], styles[path] = v.curves.log10_cell_path, (styles[name][0], ":")
    states |= {name: v.curves.log10_frobenius for name, v in layers.items()}
    told = {name: v for name, v in layers.items() if ax is None and v.loss_gradients is not None}
    quantity = _name(*(v.curves for v in layers.values()))
    panels = [(states, f"log10 of\n{quantity}" if told else f"log10 of {quantity}")]
    if told:
        losses = {name: v.loss_gradients.log10_h for name, v in told.items()}
        weights = {name: v.learned_at for name, v in told.items()}
        panels += [(losses, "log10 of\n|dL/dh_t|")]
        panels += [(weights, "log10 of\nwhat step t adds to dL/dW")]
    axes: Any = _axes(None, len(panels)) if len(panels) > 1 else [ax]
    drawn = [_draw(own, *panel, styles) for own, panel in zip(axes, panels, strict=True)]
    drawn[-1].set_xlabel("step t, in the order in which a layer reads")
    if len(drawn) == 1:
        return drawn[0]
    shown = {}
    for own in drawn:
        shown |= dict(zip(*own.get_legend_handles_labels()[::-1], strict=True))
        own.get_legend().remove()
        own.label_outer()
    place = {"loc": "outside lower center", "ncols": 2, "frameon": False, "fontsize": "small"}
    figure = axes[0].figure
    figure.set_figheight(figure.get_figheight() + NAME_HEIGHT * (len(shown) // 2))
    figure.legend(shown.values(), shown.keys(), **place)
    return axes


def draw_epochs(callback: Any, ax: "Axes | Sequence[Axes] | None" = None) -> np.ndarray:
    """Draw heat maps, step against epoch, of the first 12 layers; give the axes, one for each.

    Epochs that were left out are blank.
    """
    import pandas as pd

    curves = dict(itertools.islice(callback.curves.items(), MOST_PANELS))
    if not curves:
        raise InputError(
            "the callback has no curves yet: hand it to a Trainer, call fit, or raise budget="
        )
    axes = np.ravel(np.array(_axes(ax, len(curves)), dtype=object))
    if len(axes) != len(curves):
        raise InputError(f"ax holds {len(axes)} axes for {len(curves)} layer(s)")
    for own, (name, by_epoch) in zip(axes, curves.items(), strict=True):
        table = pd.DataFrame({epoch: pd.Series(curve) for epoch, curve in by_epoch.items()})
        shown = table.where(np.isfinite(table)).to_numpy()
        shown = np.insert(shown, range(1, len(by_epoch)), np.nan, axis=1)
        half = min(np.diff([*by_epoch]), default=1) / 2
        edges = [edge for epoch in by_epoch for edge in (epoch - half, epoch + half)]
        picture = own.pcolormesh(edges, np.arange(len(table) + 1) + 0.5, shown, cmap="cividis")
        own.set(title=name, ylabel="step t")
        _whole_ticks(own.xaxis)
        own.figure.colorbar(picture, ax=own, label="log10 of |J_t|")
    axes[-1].set_xlabel("epochs trained")
    return axes


def draw_distances(results: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Draw loss gradients' "log10" by distance; where some are zero, dashed the share "zero"."""
    axes, beside = _axes(ax), None
    for found, colour in zip(results, itertools.cycle(COLOURS), strict=False):
        axes.plot(found["log10"].cpu(), color=colour, lw=1.7)
        if (found["zero"] > 0).any():
            beside = beside or axes.twinx()
            beside.plot(found["zero"].cpu(), color=colour, ls="--", lw=0.9)
            beside.set(ylabel="share that is exactly 0 (dashed)", ylim=(0, 1.05))
    axes.set(xlabel="steps before the last", ylabel="mean log10 of |dL/dh|")
    axes.grid(lw=0.5, **FAINT)
    return axes


def _axes(ax: Any, rows: int = 1) -> Any:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    size = (WIDTH, HEIGHT if rows == 1 else 0.4 + 0.75 * HEIGHT * rows)
    return plt.subplots(rows, sharex=True, figsize=size, layout="constrained")[1]


def _styles(names: Iterable[str]) -> dict[str, Style]:
    """Give each name a style; those of cells are always the same."""
    own = {name: CELLS[name.lower()] for name in names if name.lower() in CELLS}
    free = itertools.cycle([i for i in range(len(STYLES)) if i not in own.values()])
    return {name: STYLES[own[name] if name in own else next(free)] for name in names}


def _visible(name: str) -> str:
    """A legend leaves names out that are empty or begin with _: put a blank in front."""
    return f" {name}" if name[:1] in ("", "_") else name


def _name(*results: Any) -> str:
    """Name the quantity that the curves of all results show."""
    known = DERIVATIVES | {"losses": "dL/dh_t"}
    names = {known.get(getattr(v, "state", "losses"), known["full"]) for v in results}
    name = names.pop() if len(names) == 1 else known["full"]
    # a column sum is no norm
    return f"|{name}|" if _main(results[0]) != "log10_column_sum" else f"column sum of {name}"


def _main(result: Any) -> str:
    """Name the curves that a result is about; "" without any."""
    names = ("log10_frobenius", "log10_column_sum", "log10_spectral", "log10_h")
    return next((name for name in names if getattr(result, name, None) is not None), "")


def _draw(ax: Any, curves: Mapping[str, Any], label: str, styles: Any = None) -> Any:
    """Draw curves with their bands and, where one comes near it, the end of float32."""
    new, ax = ax is None, _axes(ax)
    styles = styles or _styles(curves)
    for name, values in curves.items():
        if values is not None:
            _band(ax, values, name, styles[name])
    drawn = np.concatenate([[0.0], *(line.get_ydata() for line in ax.lines)])
    known = ax.get_legend_handles_labels()[1]
    if drawn[np.isfinite(drawn)].min() < FLOAT32_NORMAL + NEAR and END not in known:
        ax.axhline(FLOAT32_NORMAL, color=NEUTRAL, lw=0.9, ls=(0, (3, 3)), label=END)
    if ax.lines and not np.isfinite(drawn[1:]).any():
        ax.set(xlim=(0, max(line.get_xdata()[-1] for line in ax.lines)), yticks=[])
    ax.set(xlabel="step t", ylabel=label)
    _whole_ticks(ax.xaxis)
    _grid(ax)
    names = len(ax.get_legend_handles_labels()[1])
    look = {"edgecolor": "none", "framealpha": 0.85, "fontsize": "small"}
    if new and names > MOST_INSIDE:
        ax.figure.set_figheight(HEIGHT + NAME_HEIGHT * -(-names // 2))
        look |= {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 5, "ncols": 2}
    if names:
        ax.legend(**look)
    return ax


def _whole_ticks(*axes: Any) -> None:
    for axis in axes:
        with suppress(TypeError):  # the locator of a log axis takes no such settings
            axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _median(rows: np.ndarray) -> np.ndarray:
    """Take the median of rows (n, time) at every step, NaN where all are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        # nanmedian averages the middle two; where one is -inf, the larger is taken
        middle = np.nanmedian(rows, axis=0)
        return np.where(middle > -np.inf, middle, np.nanquantile(rows, 0.5, 0, method="higher"))


def _grid(ax: Any) -> None:
    ax.grid(lw=0.5, **FAINT)
    ax.spines[["top", "right"]].set_visible(False)


def _band(ax: Any, values: np.ndarray, name: str, style: Style) -> None:
    """Draw the median over examples (b, T), and between which quantiles most of them are."""
    steps = np.flatnonzero(~np.isnan(values).all(axis=0))
    if not len(steps):
        return
    known = values[:, steps]
    middle = _median(known)
    low, high = np.nanquantile(known, BAND, axis=0, method="nearest")
    label = textwrap.fill(name, LONGEST, drop_whitespace=False)
    zeros = (middle[::-1] == -np.inf).argmin() if np.isfinite(middle).any() else len(steps)
    if zeros:
        label += f" (exactly 0 from step {steps[-zeros] + 1})"
    colour, dash = style
    marker = "o" if np.isfinite(middle).sum() == 1 else None
    ax.plot(steps + 1, middle, color=colour, ls=dash, lw=1.7, label=label, marker=marker)
    if len(values) > 1:
        ax.fill_between(steps + 1, low, high, color=colour, alpha=0.15, lw=0)
