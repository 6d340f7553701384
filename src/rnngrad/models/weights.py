"""Weight files of trained and untrained models."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rnngrad.errors import InputError
from rnngrad.params import TrainParams
from rnngrad.stage import read_output

if TYPE_CHECKING:
    from rnngrad.models.classifier import CommentClassifier


def weight_file(folder: Path, weights: str, seed: int) -> Path:
    """Where the ``init`` or ``trained`` weights of a seed lie below a cell's training output."""
    return folder / f"seed-{seed}" / f"{weights}-{seed}.pt"


def load_classifier(
    path: Path, cell: str, features: int, params: TrainParams
) -> "CommentClassifier":
    """The classifier with the weights of ``path``; InputError where they are another model's."""
    # torch takes seconds to import, and who asks where the files lie needs none
    import torch

    from rnngrad.models.classifier import CommentClassifier

    model = CommentClassifier(cell, features, params)
    reader = partial(torch.load, map_location="cpu", weights_only=True)
    found = read_output(path, "dvc repro", reader)
    try:
        model.load_state_dict(found)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[:2][-1].strip(" \t.")
        raise InputError(
            f"{path}: {reason}: weights of another cell or size; train it again"
        ) from error
    return model.eval()
