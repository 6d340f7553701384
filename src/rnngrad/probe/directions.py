"""Which directions of the start does a Jacobian still depend on?

J_t is a product of t matrices. Its singular values spread by so many decades per step, and after
some hundred steps all but a dozen are below rounding (in an LSTM or GRU; an orthogonal RNN on
padding keeps them all). Written as Y V^T with orthonormal columns V, a step has only Y to multiply.
"""

import torch
from torch import Tensor

from rnngrad.probe.cells import Cell

# What is dropped is below this part of the tangents, each row at norm 1: rows count alike, however
# small they are beside others. In float64 column sums whose signs cancel have to survive it.
DROPPED = {torch.float32: 3e-8, torch.float64: 1e-14}
GRAM_LIMIT = 1e-8
WORTH = 0.8  # where more of the directions stay, all do
# With these or fewer float32 tangents go on in float64. With 24, a tenth quicker, the worst column
# sum of 100 LSTM examples was 2e-4 off after 1,403 steps; with 36 it is 3e-5.
FEW = 36
TILE, FEW_TILE = (
    12,
    2,
)  # products with a multiple of TILE columns are quick; with FEW or less any are
BY_GATE = 72  # directions times gates, per state: up to here products with every W_g are quicker


def taken_by_gate(directions: int, cell: Cell) -> bool:
    """Are they rows of a product with every W_g, instead of columns of one with their sum?

    The sum is a matrix per example, whose making is not worth it for few directions. But there are
    more W_g than states: twice as many in an LSTM, thrice in a GRU.
    """
    H = cell.weight_hh.shape[-1]
    return directions * cell.gates <= BY_GATE * len(cell.states) and directions <= H // 4


def significant_directions(J: Tensor, limit: float) -> Tensor | None:
    """V (n, k, r), orthonormal columns, with J V V^T = J (n, rows, k); None if not worth it.

    In float64. limit: what part of J may be missing, one of `DROPPED`.
    """
    columns = J.shape[-1]
    if columns <= FEW_TILE:
        return None
    norms = torch.linalg.vector_norm(J, dim=-1, keepdim=True)
    rows = J / norms.clamp(min=torch.finfo(J.dtype).tiny)
    V = _right_vectors(rows, limit)
    parts = torch.linalg.vector_norm(rows @ V, dim=1).square().cumsum(dim=1)
    dropped = int((parts <= limit**2 * parts[:, -1:]).sum(dim=1).min())
    kept = _whole_tiles(max(columns - dropped, 1))
    return V[:, :, -kept:] if kept <= WORTH * columns else None


def _whole_tiles(columns: int) -> int:
    tile = FEW_TILE if columns <= FEW else TILE
    return -(-columns // tile) * tile


def _right_vectors(rows: Tensor, limit: float) -> Tensor:
    """Right singular vectors (n, k, k), those of the smallest values first.

    By way of the Gram matrix vectors of values below 1e-8 of the largest are mixed with others.
    """
    if limit > GRAM_LIMIT:
        return torch.linalg.eigh(rows.mT @ rows)[1]
    return torch.linalg.svd(rows, full_matrices=False)[2].mT.flip(-1)
