"""Initial weights of recurrent modules.

References:
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward networks".
    Saxe et al. (2014), "Exact solutions to the nonlinear dynamics of learning".
    Jozefowicz et al. (2015), "An empirical exploration of recurrent network architectures"
    (forget bias 1).
"""

import torch
from torch import nn


@torch.no_grad()
def initialize_like_keras(module: nn.RNNBase, forget_bias: float = 1.0) -> None:
    """Overwrite the weights with Keras' defaults, drawn from torch's global generator.

    Input kernels are Glorot-uniform and recurrent kernels orthogonal, each over the *stacked*
    gates, as Keras does it: of an LSTM's recurrent kernel (4H, H) the columns are orthonormal, so
    one gate's H x H block has a spectral norm near 1/2, not 1. Biases are zero, but for an LSTM's
    forget gate.

    torch has two bias vectors where Keras has one; ``forget_bias`` goes to the first, the second
    starts at zero.
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
