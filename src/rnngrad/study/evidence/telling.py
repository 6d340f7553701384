"""How much is remembered of a telling word, by how far it lies from the end, and how much gradient.

Only samples that know their telling words have such a distance; the others give empty frames.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import rnngrad
from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import CommentClassifier
from rnngrad.params import EmbedParams
from rnngrad.study.evidence.passages import state_after_zeros

BINS = 5
PROBED = 4  # comments of each bin whose gradient is taken: those nearest to its median distance

COLUMNS = [
    "bin",
    "distance_low",
    "distance_median",
    "distance_high",
    "comments",
    "accuracy",
    "auroc",
    "log10_gradient",
]


def telling_comments(sample: TokenizedSample, embed: EmbedParams) -> pd.DataFrame:
    """The toxic test comments whose last telling word is known and read.

    Returns:
        Columns: comment (position in the sample), distance (steps between the last telling word and
        the state that is read: the words after it and padding behind), bin (0, 1, ...: fifths of
        the distances; fewer where distances are equal).
    """
    limit = sample.max_length(embed.max_length)
    distance = sample.telling_distance
    kept = (distance < limit) & (sample.labels == 1) & (sample.splits == "test")
    comments = np.flatnonzero(kept)
    behind = limit - np.minimum(sample.lengths[comments], limit) if embed.padding == "post" else 0
    steps = distance[comments].astype(np.int64) + behind
    table = pd.DataFrame({"comment": comments, "distance": steps})
    if table.empty:
        return table.assign(bin=table["distance"])
    # a single distance has no fifths: it is a bin of its own
    bins = np.nan_to_num(pd.qcut(steps, BINS, labels=False, duplicates="drop"))
    return table.assign(bin=bins.astype(np.int64))


def remembered_by_distance(
    classifier: CommentClassifier,
    predictions: pd.DataFrame,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    embed: EmbedParams,
) -> pd.DataFrame:
    """A trained model's results on toxic comments, by the distance of the last telling word.

    Args:
        classifier: the trained model.
        predictions: its comment, label and probability of the test split.
        sample, vectors, embed: what it read.

    Returns:
        One row per bin; none where no distance is known. Columns: bin; distance_low,
        distance_median, distance_high (steps); comments; accuracy (share called toxic); auroc
        (share of the pairs with a comment that is not toxic that are in the right order, which a
        model cannot raise by calling everything toxic); log10_gradient (median over some comments
        of log10 of |d logit/d s| at the step of the telling word, over that at the last step; s is
        c for an LSTM, h otherwise).
    """
    telling = telling_comments(sample, embed)
    if telling.empty:
        return pd.DataFrame(columns=COLUMNS)
    probed = _nearest_to_the_median(telling)
    probed["log10"] = _log10_gradients(classifier, sample, vectors, embed, probed)
    gradients = probed.groupby("bin")["log10"].median()
    others = predictions.loc[predictions["label"] == 0, "probability"]
    rows = []
    for number, found in telling.merge(predictions, on="comment").groupby("bin"):
        distance, probability = found["distance"], found["probability"]
        rows.append(
            {
                "bin": number,
                "distance_low": distance.min(),
                "distance_median": distance.median(),
                "distance_high": distance.max(),
                "comments": len(found),
                "accuracy": (probability > 0.5).mean(),
                "auroc": _in_order(probability, others),
                "log10_gradient": gradients[number],
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _in_order(higher: pd.Series, lower: pd.Series) -> float:
    """Share of the pairs in which ``higher`` is; equal ones count half. NaN where there are none.

    Mann and Whitney's U, from ranks: every worker would have to import SciPy's statistics for it.
    """
    if not len(lower):
        return np.nan
    n = len(higher)
    ranks = pd.concat([higher, lower]).rank()
    return (ranks.iloc[:n].sum() - n * (n + 1) / 2) / (n * len(lower))


def _nearest_to_the_median(telling: pd.DataFrame) -> pd.DataFrame:
    median = telling.groupby("bin")["distance"].transform("median")
    order = (telling["distance"] - median).abs().sort_values(kind="stable").index
    return telling.loc[order].groupby("bin").head(PROBED).sort_values("comment")


def _log10_gradients(
    classifier: CommentClassifier,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    embed: EmbedParams,
    probed: pd.DataFrame,
) -> NDArray[np.float64]:
    """(n,) log10 of |d logit/d s| at the telling word, over that at the step that is read."""
    module, comments = classifier.recurrent, probed["comment"].to_numpy()
    limit = sample.max_length(embed.max_length)
    batches = CommentBatches(sample, vectors, comments, embed.padding, limit)
    batch = batches[list(range(len(comments)))]
    last = batch.lengths.numpy() - 1
    at = last - probed["distance"].to_numpy()
    # no telling word comes earlier: up to there the forward pass is enough
    first = int(at.min())
    state = state_after_zeros(module, batch.shared_prefix, len(comments))
    with torch.no_grad():
        state = module(batch.inputs[:, :first], state)[1] if first else state
    inputs, b = batch.inputs[:, first:], np.arange(len(comments))
    gradient = inputs.new_zeros(*inputs.shape[:2], module.hidden_size)
    gradient[b, last - first] = classifier.head.weight.detach()
    curves = rnngrad.loss_gradient_curves(module, inputs, gradient, state)
    log10 = curves.log10_h if curves.log10_c is None else curves.log10_c
    return log10[b, at - first] - log10[b, last - first]
