"""Exact Jacobian curves and gradient measures. The probe knows no package of the study's."""

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
    "autograd_column_sums", "diagnose", "jacobian_curves", "jacobian_curves_of_step",
    "loss_gradient_curves", "lyapunov_exponents", "steps_of", "trajectory", "weight_gradient_parts",
]  # fmt: skip
