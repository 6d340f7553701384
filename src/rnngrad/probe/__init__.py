"""Exact Jacobian curves and gradient measures. The probe knows no package of the study's."""

import torch

from rnngrad.probe._batch import steps_of
from rnngrad.probe.curves import JacobianCurves, jacobian_curves
from rnngrad.probe.diagnosis import Diagnosis, autograd_column_sums, diagnose
from rnngrad.probe.loss_gradients import LossGradientCurves, loss_gradient_curves
from rnngrad.probe.lyapunov import lyapunov_exponents
from rnngrad.probe.step import jacobian_curves_of_step
from rnngrad.probe.trajectory import Trajectory, trajectory
from rnngrad.probe.weight_gradients import WeightGradientParts, weight_gradient_parts

__all__ = [
    "Diagnosis", "JacobianCurves", "LossGradientCurves", "Trajectory", "WeightGradientParts",
    "autograd_column_sums", "compile_loops", "diagnose", "jacobian_curves",
    "jacobian_curves_of_step", "loss_gradient_curves", "lyapunov_exponents", "steps_of",
    "trajectory", "weight_gradient_parts",
]  # fmt: skip


@torch.random.fork_rng(devices=())  # the modules draw their weights
def compile_loops() -> None:
    """Compile all loops now, or load them: the processes that are started later find them ready."""
    x = torch.zeros(1, 1, 1)
    for module in (torch.nn.RNN(1, 1), torch.nn.GRU(1, 1), torch.nn.LSTM(1, 1)):
        jacobian_curves(module, x)
        weight_gradient_parts(module, x, x)
        autograd_column_sums(module, x)
