"""How far back do gradients reach in recurrent networks?

The public names below live in `probe`, `model`, `lightning` and `plot`. They are resolved on first
use (PEP 562), so that `import rnngrad` and the rooms that need no torch stay quick to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rnngrad.errors import InputError

if TYPE_CHECKING:
    from rnngrad.lightning import GradientReach, LossGradientByDistance
    from rnngrad.model import gradient_reach
    from rnngrad.plot import compare
    from rnngrad.probe import (
        Diagnosis,
        JacobianCurves,
        LossGradientCurves,
        Trajectory,
        WeightGradientParts,
        autograd_column_sums,
        diagnose,
        jacobian_curves,
        jacobian_curves_of_step,
        loss_gradient_curves,
        lyapunov_exponents,
        trajectory,
        weight_gradient_parts,
    )

__all__ = [
    "Diagnosis",
    "GradientReach",
    "InputError",
    "JacobianCurves",
    "LossGradientByDistance",
    "LossGradientCurves",
    "Trajectory",
    "WeightGradientParts",
    "autograd_column_sums",
    "compare",
    "diagnose",
    "gradient_reach",
    "jacobian_curves",
    "jacobian_curves_of_step",
    "loss_gradient_curves",
    "lyapunov_exponents",
    "trajectory",
    "weight_gradient_parts",
]

HOMES = {
    "GradientReach": "rnngrad.lightning",
    "LossGradientByDistance": "rnngrad.lightning",
    "compare": "rnngrad.plot",
    "gradient_reach": "rnngrad.model",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("rnngrad")
    if name in __all__:
        return getattr(import_module(HOMES.get(name, "rnngrad.probe")), name)
    raise AttributeError(f"module 'rnngrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
