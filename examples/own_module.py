"""How far back does your own model learn from? The probe on a whole model and a batch.

    python examples/own_module.py

Put your own model, batch and loss in their places: any module with an nn.RNN, nn.LSTM or nn.GRU in
it, trained or not. `reach.plot()` draws what is printed here.
"""

import torch
from torch import Tensor, nn

import rnngrad


class Classifier(nn.Module):
    """Embedding, two LSTM layers, a head on the last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 10)
        self.encoder = nn.LSTM(10, 20, num_layers=2, batch_first=True)
        self.head = nn.Linear(20, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        output, _ = self.encoder(self.embedding(tokens))
        return self.head(output[:, -1])


def main() -> None:
    torch.manual_seed(0)
    model, tokens, labels = Classifier(), torch.randint(100, (4, 300)), torch.tensor([0, 1, 0, 1])
    reach = rnngrad.gradient_reach(
        model, tokens, loss=lambda logits: nn.functional.cross_entropy(logits, labels)
    )
    print(reach)
    print()
    print(reach.layers["encoder.1"].diagnosis)


if __name__ == "__main__":
    main()
