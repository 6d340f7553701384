"""Its import compiles the probe's loops, or loads them: workers, copies of a process, have them."""

import torch

from rnngrad.probe import autograd_column_sums, jacobian_curves, weight_gradient_parts

with torch.random.fork_rng(devices=()):  # the modules draw their weights
    _x = torch.zeros(1, 1, 1)
    for _module in (torch.nn.RNN(1, 1), torch.nn.GRU(1, 1), torch.nn.LSTM(1, 1)):
        jacobian_curves(_module, _x)
        weight_gradient_parts(_module, _x, _x)
        autograd_column_sums(_module, _x)
