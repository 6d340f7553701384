"""Every figure that the results allow to draw, by its name."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rnngrad.report import evidence_figures, figures, why_figures
from rnngrad.study.results import Results


def all_figures(results: Results, lengths: NDArray[np.int64], most: int) -> dict[str, Figure]:
    """The figures of the report in their order on the page.

    Args:
        results: what the stages found.
        lengths: (n,) words of each comment.
        most: steps that a comment has at most, and every padded one.
    """
    drawn = {
        "windows": why_figures.windows_figure(results.condition_curves),
        "conditions": why_figures.conditions_figure(results.condition_curves),
        "training": figures.training_figure(results),
        "remembered": evidence_figures.remembered_figure(results.evidence["remembered"]),
        "jacobian": figures.jacobian_figure(results),
        "gates": figures.gates_figure(results),
        "triangle": evidence_figures.triangle_figure(results.triangles),
        "paths": evidence_figures.paths_figure(results.curves),
        "lengths": figures.lengths_figure(lengths, most, results.params.embed.padding),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
