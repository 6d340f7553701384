"""Can an LSTM's gradient grow along the path that passes through the output gates alone?

From h_(k-1) to h_k there is a way through the output gate alone, o_k = s(W_o h_(k-1) + ...). Its
derivative is K_k W_o with K_k = diag(tanh(c_k) * o_k'). Over n steps,

    || K_n W_o ... K_1 W_o ||  <=  (max_k ||K_k|| ||W_o||)^n  <=  (||W_o|| / 4)^n

with spectral norms, since |tanh| <= 1 and s' <= 1/4. See Pascanu, Mikolov and Bengio (2013).
"""

import copy
import math
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rnngrad
from rnngrad.study import CLIP_NORM
from rnngrad.study.runs.open_model import Opened

COMMENTS = 2
STEPS = 50
FACTORS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # W_o is multiplied by them in turn


def output_gates(model: Opened) -> pd.DataFrame:
    """Measure how fast that path grows, with W_o times 1, 2, 4, ... until it does, or 256.

    A row per factor, of two comments and 50 steps at most, in float64. path_rate, bound_rate,
    ceiling_rate: log10 of the norms above per step, means over comments. The first and last row
    alone have the others. total_rate: log10 of ||d(h, c)_n / d(h, c)_0||_F per step, the
    identity's being 0, from eight random directions. gradient_norm, clipped_norm, cosine: norms of
    dL/dW_hh before and after clipping to the norm 1, and the cosine between the two.
    log10_early_to_late: log10 of dL/dW_hh's norm from the first half of the steps over the other's.
    """
    H, model, rows = model.module.hidden_size, model.of(slice(COMMENTS)), []
    x = model.inputs.x[:, :STEPS]
    model = model._replace(inputs=model.inputs._replace(x=x))
    norm = torch.linalg.matrix_norm(model.kernel[3 * H :], 2).item()
    how = {"state": "full", "method": "sketch", "statistics": ["frobenius"]}
    for factor in FACTORS:
        scaled = model.double()
        W_o = scaled.kernel[3 * H :]  # torch stacks the gates as i, f, g, o
        W_o *= factor
        mix = rnngrad.trajectory(*scaled.problem).factors.mix
        K = torch.from_numpy(mix[:, :, 3]).transpose(0, 1)  # (T, B, H), diagonals tanh(c_k) o_k'
        # a cell state of zero stays zero until a word has a vector: there is no path yet
        begun = (K != 0).any(dim=2).all(dim=1)
        K = K[int(begun.byte().argmax()) :]
        row: dict[str, float] = {"factor": factor}
        row["path_rate"] = (log10_norm_of_product(K.float(), W_o.float()) / len(K)).mean().item()
        row["bound_rate"] = (K.abs().amax(dim=(0, 2)) * (factor * norm)).log10().mean().item()
        row["ceiling_rate"] = math.log10(factor * norm / 4)
        last = row["path_rate"] > 0 or factor == FACTORS[-1]
        if last or factor == 1:
            curves = rnngrad.jacobian_curves(*scaled.problem, **how, seed=model.run.inputs_seed)
            gained = curves.log10_frobenius[:, -1].mean() - math.log10(2 * H) / 2
            row |= {"total_rate": float(gained) / x.shape[1]} | _clipping(scaled)
        rows.append(row)
        if last:
            break
    return pd.DataFrame(rows)


def log10_norm_of_product(K: Tensor, W_o: Tensor) -> Tensor:
    """(B,) log10 of || K_n W_o ... K_1 W_o ||_2; the scale is taken out at every step."""
    product = torch.eye(len(W_o), dtype=W_o.dtype).expand(K.shape[1], -1, -1)
    log10_scale = product.new_zeros(len(product))
    for diagonal in K:
        product = diagonal.unsqueeze(2) * (W_o @ product)
        top = product.abs().amax(dim=(1, 2))
        log10_scale += top.log10()
        # an exact zero stays one: -inf in the scale
        product = product / torch.where(top > 0, top, 1.0)[:, None, None]
    return log10_scale + torch.linalg.matrix_norm(product, 2).log10().nan_to_num(neginf=0.0)


def _clipping(model: Opened) -> dict[str, float]:
    """The gradient of W_hh before and after clipping, and where its parts come from."""
    _, early, head, (x, _, _, labels), state = model
    late, half = copy.deepcopy(early), x.shape[1] // 2
    state = early(x[:, :half], state)[1] if half else state
    output, _ = late(x[:, half:], state)
    logits = head(output[:, -1]).squeeze(-1)
    uses = [module.get_parameter("weight_hh_l0") for module in (early, late)]
    loss = binary_cross_entropy_with_logits(logits, cast("Tensor", labels).double())
    parts = torch.autograd.grad(loss, uses, allow_unused=True, materialize_grads=True)
    weight = nn.Parameter(uses[0].detach())
    gradient = sum(parts, torch.zeros_like(weight))
    weight.grad = gradient.clone()
    nn.utils.clip_grad_norm_([weight], CLIP_NORM)
    cosine = nn.functional.cosine_similarity(gradient.flatten(), weight.grad.flatten(), dim=0)
    return {
        "gradient_norm": gradient.norm().item(),
        "clipped_norm": weight.grad.norm().item(),
        "cosine": cosine.item(),
        "log10_early_to_late": (parts[0].norm() / parts[1].norm()).log10().item(),
    }
