"""Weight files of trained and untrained models."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from rnngrad.errors import InputError
from rnngrad.params import TrainParams

if TYPE_CHECKING:
    from torch import Tensor

    from rnngrad.models.classifier import CommentClassifier


def weight_file(folder: Path, weights: str, seed: int) -> Path:
    """Where the ``init`` or ``trained`` weights of a seed lie below a cell's training output."""
    return folder / f"seed-{seed}" / f"{weights}-{seed}.pt"


def load_classifier(
    path: Path, cell: str, features: int, params: TrainParams
) -> "CommentClassifier":
    """The classifier with the weights of ``path``.

    Raises:
        InputError: the file is missing or no weight file, or its shapes are another model's.
    """
    # torch takes seconds to import, and who asks where the files lie needs none
    from rnngrad.models.classifier import CommentClassifier

    model = CommentClassifier(cell, features, params)
    found = _read(path)
    for name, wanted in model.state_dict().items():
        if name not in found:
            raise InputError(f"{path}: has no weight {name!r}; it belongs to another kind of cell")
        if found[name].shape != wanted.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, but cells.{cell} and the "
                f"word vectors ask for {tuple(wanted.shape)}; train it again"
            )
    model.load_state_dict(found)
    return model.eval()


def _read(path: Path) -> "dict[str, Tensor]":
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); train it first") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{path}: not a torch weight file; train it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no state dict; train it again")
    return found
