"""How far back do gradients reach in recurrent networks?

The public names below live in `probe`, `whole_model`, `lightning`, `keras` and `plot`. They are
resolved on first use (PEP 562): `import rnngrad` and modules without torch are quick to import.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rnngrad.errors import InputError

if TYPE_CHECKING:
    __version__: str
    from rnngrad.keras import from_keras
    from rnngrad.lightning import GradientReach, LossGradientByDistance
    from rnngrad.plot import compare
    from rnngrad.whole_model import LayerReach, ModelReach, gradient_reach

    from .probe import *  # noqa: F403  the names below alone are public

__all__ = [  # noqa: F405
    "Diagnosis", "GradientReach", "InputError", "JacobianCurves", "LayerReach",
    "LossGradientByDistance", "LossGradientCurves", "ModelReach", "Trajectory",
    "WeightGradientParts", "autograd_column_sums", "compare", "diagnose", "from_keras",
    "gradient_reach", "jacobian_curves", "jacobian_curves_of_step", "loss_gradient_curves",
    "lyapunov_exponents", "trajectory", "weight_gradient_parts",
]  # fmt: skip

HOMES = {"compare": "plot", "from_keras": "keras"}  # the others live in `probe`
HOMES |= dict.fromkeys(("LayerReach", "ModelReach", "gradient_reach"), "whole_model")
HOMES |= dict.fromkeys(("GradientReach", "LossGradientByDistance"), "lightning")


if not TYPE_CHECKING:  # a type checker would take it for any name
    if find_spec("pytorch_lightning") is None:  # help() and `import *` ask for all of these
        __all__ = [name for name in __all__ if HOMES.get(name) != "lightning"]

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib import metadata

            return metadata.version("rnngrad")
        if name in HOMES or name in __all__:
            return getattr(import_module(f"rnngrad.{HOMES.get(name, 'probe')}"), name)
        raise AttributeError(f"module 'rnngrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
