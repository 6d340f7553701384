"""The study: runs of models, measures of them, and what the claims are worth."""

from rnngrad.params import Padding, Params

# the weights of trained models, by how comments are padded in their training
TRAINED: dict[Padding, str] = {"pre": "trained", "none": "trained_without_padding"}
WEIGHTS = {
    "init": "untrained",
    "trained": "trained with padding",
    "trained_without_padding": "trained without padding",
}
CLIP_NORM = 1.0  # the largest norm that a clipped gradient may have
MILESTONES = (1, 20, 100, 400, 1383)  # steps that tables show, beside the last one


def trained_weights(params: Params) -> dict[Padding, str]:
    """Choose from ``TRAINED`` what this study has."""
    return {padding: name for padding, name in TRAINED.items() if padding in params.train.padding}
