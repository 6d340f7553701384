"""Initial weights of recurrent modules.

References:
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward networks".
    Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning": orthogonal kernels.
    Jozefowicz et al. (2015), "An empirical exploration of recurrent networks": forget bias 1.
    Le, Jaitly and Hinton (2015), "A simple way to initialize recurrent networks": the identity.
    Tallec and Ollivier (2018), "Can recurrent neural networks warp time?": chrono.
"""

import torch
from torch import nn

from rnngrad.errors import InputError


@torch.no_grad()
def initialize_like_keras(module: nn.RNNBase, forget_bias: float = 1.0) -> None:
    """Overwrite the weights with Keras' defaults, drawn from torch's global generator.

    Input kernels are Glorot-uniform and recurrent kernels orthogonal, each over the *stacked*
    gates, as Keras does it: of an LSTM's recurrent kernel (4H, H) the columns are orthonormal, so
    one gate's H x H block has a spectral norm near 1/2, not 1. Biases are zero, but for an LSTM's
    forget gate: of torch's two bias vectors, the first takes ``forget_bias``.
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


@torch.no_grad()
def set_identity(module: nn.RNNBase) -> None:
    """Overwrite every recurrent kernel of a relu RNN with the identity matrix (Le et al., 2015)."""
    if not (isinstance(module, nn.RNN) and module.nonlinearity == "relu"):
        raise InputError("the identity initialiser is made for an nn.RNN with nonlinearity='relu'")
    for name, parameter in module.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.eye_(parameter)


@torch.no_grad()
def set_chrono_biases(module: nn.RNNBase, longest: int) -> None:
    """Draw an LSTM's forget biases as log U(1, longest - 1) and negate them for its input gates.

    The forget gates then have time constants from 1 to ``longest`` steps (equation 16).
    """
    if not isinstance(module, nn.LSTM):
        raise InputError("the chrono initialiser is made for an nn.LSTM")
    if longest < 3:
        raise InputError(f"the chrono initialiser needs at least 3 steps, got {longest}")
    H = module.hidden_size
    for name, parameter in module.named_parameters():
        if name.startswith("bias_ih"):
            forget = torch.empty(H).uniform_(1, longest - 1).log()
            parameter[H : 2 * H], parameter[:H] = forget, -forget
