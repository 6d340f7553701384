"""Initial weights of recurrent modules.

References:
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward networks".
    Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning": orthogonal kernels.
    Jozefowicz et al. (2015), "An empirical exploration of recurrent networks": forget bias 1.
    Le, Jaitly and Hinton (2015), "A simple way to initialize recurrent networks": the identity.
    Tallec and Ollivier (2018), "Can recurrent neural networks warp time?": chrono.
"""

from typing import Any

import torch
from torch import nn

from rnngrad.errors import InputError


@torch.no_grad()
def initialize_like_keras(module: nn.RNNBase, forget_bias: float = 1.0) -> None:
    """Overwrite the weights with Keras' defaults, drawn from torch's global generator.

    Input kernels are Glorot-uniform and recurrent ones orthogonal, over the *stacked* gates. The
    columns of an LSTM's (4H, H) are orthonormal. One gate's block has a spectral radius near 1/2.
    Biases are zero, but an LSTM's forget gate has ``forget_bias``, in torch's first bias vector.
    """
    H = module.hidden_size
    for name, parameter in module.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
        if name.startswith("bias_ih") and isinstance(module, nn.LSTM):
            parameter[H : 2 * H] = forget_bias


def make_layer(
    kind: Any,  # nn.RNN, nn.LSTM, nn.GRU or one derived from them
    features: int,
    units: int,
    initializer: str | None,
    *,
    forget_bias: float = 0.0,
    longest: int = 0,
) -> nn.RNNBase:
    """Make a layer with initial weights, drawn from torch's global generator.

    ``torch`` leaves torch's own, ``keras`` is :func:`initialize_like_keras`. On top of keras
    ``identity`` sets a relu RNN's recurrent kernel to the identity matrix (Le et al., 2015).
    ``chrono`` draws an LSTM's forget biases as log U(1, longest - 1) and negates them for its input
    gates. The forget gates have time constants from 1 to ``longest`` steps (Tallec, equation 16).
    """
    wanted = {"identity": nn.RNN, "chrono": nn.LSTM}.get(initializer or "", nn.RNNBase)
    if not issubclass(kind, wanted):
        raise InputError(f"the {initializer} initialiser is made for an nn.{wanted.__name__}")
    if initializer == "chrono" and longest < 3:
        raise InputError(f"the chrono initialiser needs at least 3 steps, got {longest}")
    relu = {"nonlinearity": "relu"} if initializer == "identity" else {}
    module: Any = kind(features, units, batch_first=True, **relu)
    if initializer != "torch":
        initialize_like_keras(module, forget_bias)
    with torch.no_grad():
        if initializer == "identity":
            nn.init.eye_(module.weight_hh_l0)
        if initializer == "chrono":
            forget = torch.empty(units).uniform_(1, longest - 1).log()
            module.bias_ih_l0[units : 2 * units], module.bias_ih_l0[:units] = forget, -forget
    return module
