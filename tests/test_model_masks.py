"""Whole models whose layers skip steps: as if these steps were not there."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnngrad
from whole_models import BATCH, STEPS, close

LENGTHS = [4, 9, 7]
MODULES = {
    "rnn": lambda: nn.RNN(3, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "gru": lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True),
    "projected": lambda: nn.LSTM(3, 4, bidirectional=True, proj_size=2, batch_first=True),
}


def a_mask() -> Tensor:
    """As many steps as LENGTHS say, in front, behind and in between."""
    return torch.stack([torch.randperm(STEPS) < length for length in LENGTHS])


def last_states(output: tuple[Tensor, Any]) -> Tensor:
    h, c = output[1] if isinstance(output[1], tuple) else (output[1], torch.zeros(1))
    return h.square().sum() + c[0].sin().sum()


@pytest.mark.parametrize("by", ["lengths", "mask", "both"])
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_steps_that_do_not_count_might_as_well_not_be_there(kind: str, by: str):
    module = MODULES[kind]().double()
    ends = torch.tensor([8, 9, 9]) if by == "both" else torch.tensor(LENGTHS)
    mask = torch.arange(STEPS) < ends[:, None] if by == "lengths" else a_mask()
    given: dict[str, Any] = {"mask": mask, "lengths": ends}
    given = given if by == "both" else {by: given[by]}
    mask = mask & (torch.arange(STEPS) < ends[:, None]) if by == "both" else mask
    x = torch.randn(BATCH, STEPS, 3).double()
    compact = torch.zeros_like(x)
    for b in range(BATCH):
        compact[b, : mask[b].sum()] = x[b, mask[b]]
    packed = pack_padded_sequence(compact, mask.sum(dim=1), True, enforce_sorted=False)
    x[~mask] = torch.nan  # which nobody reads
    x = x if module.batch_first else x.transpose(0, 1)
    reach = rnngrad.gradient_reach(module, x, loss=last_states, **given)
    by_hand = rnngrad.gradient_reach(module, packed, loss=last_states)
    close(reach, by_hand)
    for name, layer in reach.layers.items():
        torch.testing.assert_close(layer.inputs, by_hand.layers[name].inputs)


def test_the_state_is_kept_where_a_step_does_not_count():
    gru, mask, seen = nn.GRU(3, 4, batch_first=True).double(), a_mask(), []
    mask[0, :2] = False
    x, h_0 = torch.randn(BATCH, STEPS, 3).double(), torch.randn(1, BATCH, 4).double()

    def weighted(output: tuple[Tensor, Tensor]) -> Tensor:
        seen.append(output)
        return (output[0].square() * torch.arange(STEPS)[:, None]).sum()

    layer = rnngrad.gradient_reach(gru, x, h_0, loss=weighted, mask=mask).layers["gru"]
    h, kept = h_0[0], []
    for t in range(STEPS):
        h = torch.where(mask[:, [t]], gru(x[:, [t]], h[None])[1][0], h)
        kept.append(h)
    by_hand = torch.stack(kept, dim=1), h[None]
    torch.testing.assert_close(seen[0], by_hand)
    weighted(by_hand).backward()
    assert layer.output_gradient is not None
    parts = rnngrad.weight_gradient_parts(
        layer.module, layer.inputs, layer.output_gradient, layer.initial_state,
        lengths=layer.lengths, reduce="none",
    )  # fmt: skip
    for name, weight in gru.named_parameters():
        assert weight.grad is not None
        whole = torch.from_numpy(parts[name].sum(axis=(0, 1, 2)))
        torch.testing.assert_close(whole, weight.grad)


class Masked(nn.Module):
    """Its forward has a word of the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.lstm(x * mask[:, :, None])[0]


class Anything(Masked):
    """Its forward takes any words."""

    def forward(self, *given: Tensor, **words: Tensor) -> Tensor:
        return super().forward(*given, **words)


@pytest.mark.parametrize("kind", [Masked, Anything])
def test_a_word_of_forward_is_forwards(kind: type[Masked]):
    model, mask = kind(), a_mask()
    x = torch.randn(BATCH, STEPS, 3)
    by_word = rnngrad.gradient_reach(model, x, mask=mask, loss=torch.sum)
    close(by_word, rnngrad.gradient_reach(model, x, mask, loss=torch.sum))
    if kind is Masked:
        both = rnngrad.gradient_reach(model, x, mask=mask, lengths=LENGTHS, loss=torch.sum)
        assert both.layers["lstm"].lengths.tolist() == LENGTHS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": torch.ones(3, 8, dtype=torch.bool)}, r"lstm: mask has shape \(3, 8\), expected"),
        ({"mask": torch.zeros(3, 9, dtype=torch.bool)}, "lstm: mask counts no step of example 0"),
        ({"lengths": [9, 9, 10]}, r"lstm: lengths\[2\] = 10: must lie in 1..9"),
    ],
)
def test_masks_that_do_not_fit_are_refused(given: Any, message: str):
    with pytest.raises(rnngrad.InputError, match=message):
        rnngrad.gradient_reach(nn.LSTM(3, 4, batch_first=True), torch.randn(3, 9, 3), **given)


class Longer(Masked):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        _, state = self.lstm(x)
        return self.lstm(torch.cat((x, x), dim=1), state)[0]


def test_lengths_are_those_of_one_sequence():
    with pytest.raises(rnngrad.InputError, match="reads 18 steps: lengths of the 9 steps that"):
        rnngrad.gradient_reach(Longer(), torch.randn(BATCH, STEPS, 3), lengths=LENGTHS)


def test_packed_inputs_say_themselves_which_steps_count():
    packed = pack_padded_sequence(torch.randn(BATCH, STEPS, 3), torch.tensor([9, 7, 4]), True)
    with pytest.raises(rnngrad.InputError, match="lstm reads packed inputs: leave lengths out"):
        rnngrad.gradient_reach(nn.LSTM(3, 4), packed, lengths=LENGTHS)
