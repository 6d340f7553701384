"""How far back does your own module learn from? The probe on an nn.GRU and a batch.

    python examples/own_module.py

Put your own module and batch in their places: any nn.RNN, nn.LSTM or nn.GRU, trained or not.
"""

import torch

import rnngrad


def main() -> None:
    torch.manual_seed(0)
    gru = torch.nn.GRU(input_size=10, hidden_size=20, batch_first=True)
    batch = torch.randn(4, 300, 10)
    curves = rnngrad.jacobian_curves(gru, batch, statistics=["frobenius"])
    for t in (1, 10, 100, 300):
        median = torch.from_numpy(curves.log10_frobenius[:, t - 1]).median()
        print(f"step {t:3}: log10 of |d h_t / d h_0| is {median:+.1f}")
    print()
    print(rnngrad.diagnose(gru, batch))


if __name__ == "__main__":
    main()
