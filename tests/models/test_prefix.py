import pytest
import torch
from torch import Tensor, nn

from rnngrad.models.initializers import initialize_like_keras
from rnngrad.models.prefix import state_after_padding

MODULES = {
    "rnn": lambda: nn.RNN(3, 7, batch_first=True),
    "relu": lambda: nn.RNN(3, 7, batch_first=True, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(3, 7, batch_first=True),
    "gru": lambda: nn.GRU(3, 7, batch_first=True),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("initializer", ["torch", "keras"])
def test_state_and_gradient_equal_the_plain_computation(
    name: str, initializer: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    module = MODULES[name]().to(dtype)
    if initializer == "keras":
        initialize_like_keras(module)
        nn.init.uniform_(dict(module.named_parameters())["bias_ih_l0"], -0.1, 0.1)
    padding = torch.zeros(1, 40, 3, dtype=dtype)

    def state_and_gradients(state: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        states = state if isinstance(state, tuple) else (state,)
        module.zero_grad()
        torch.stack([(s**2).sum() for s in states]).sum().backward()
        zero = torch.zeros(1)
        gradients = [zero if p.grad is None else p.grad for p in module.parameters()]
        return [*(s.detach() for s in states), *(g.clone() for g in gradients if g.any())]

    ours = state_and_gradients(state_after_padding(module, 40))
    plain = state_and_gradients(module(padding)[1])
    assert len(ours) == len(plain) > 2
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
