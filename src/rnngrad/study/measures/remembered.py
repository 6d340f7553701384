"""How much is remembered of a telling word, by how far it lies from the end, and how much gradient.

Only samples that know their telling words have such a distance; the others give empty tables.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

import rnngrad
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.study.inputs import padded_comments
from rnngrad.study.open_model import state_after
from rnngrad.study.runs import Reads

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


def telling_comments(sample: TokenizedSample, reads: Reads) -> pd.DataFrame:
    """The toxic test comments whose last telling word is known and read.

    Returns:
        Columns: comment (position in the sample), distance (steps between the last telling word and
        the state that is read: the words after it and padding behind), bin (0, 1, ...: fifths of
        the distances; fewer where distances are equal).
    """
    limit = sample.max_length(reads.steps)
    distance = sample.telling_distance
    kept = (distance < limit) & (sample.labels == 1) & (sample.splits == "test")
    comments = np.flatnonzero(kept)
    behind = limit - np.minimum(sample.lengths[comments], limit) if reads.padding == "post" else 0
    steps = distance[comments].astype(np.int64) + behind
    table = pd.DataFrame({"comment": comments, "distance": steps})
    if table.empty:
        return table.assign(bin=table["distance"])
    # a single distance has no fifths: it is a bin of its own
    bins = np.nan_to_num(pd.qcut(steps, BINS, labels=False, duplicates="drop"))
    return table.assign(bin=bins.astype(np.int64))


def remembered(
    module: nn.RNNBase,
    head: nn.Linear,
    predictions: pd.DataFrame,
    reads: Reads,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
) -> pd.DataFrame:
    """A trained model's results on toxic comments, by the distance of the last telling word.

    Args:
        module, head: the trained classifier.
        predictions: its comment, label and probability of the test split.
        reads: how it reads comments.
        sample, vectors: the embedded comments.

    Returns:
        One row per bin; none where no distance is known. Columns: bin; distance_low,
        distance_median, distance_high (steps); comments; accuracy (share called toxic); auroc
        (share of the pairs with a comment that is not toxic that are in the right order, which a
        model cannot raise by calling everything toxic); log10_gradient (median over some comments
        of log10 of |d logit/d s| at the step of the telling word, over that at the last step; s is
        c for an LSTM, h otherwise).
    """
    telling = telling_comments(sample, reads)
    if telling.empty:
        return pd.DataFrame(columns=COLUMNS)
    probed = _nearest_to_the_median(telling)
    probed["log10"] = _log10_gradients(module, head, probed, reads, sample, vectors)
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
    module: nn.RNNBase,
    head: nn.Linear,
    probed: pd.DataFrame,
    reads: Reads,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
) -> NDArray[np.float64]:
    """(n,) log10 of |d logit/d s| at the telling word, over that at the step that is read."""
    chosen, limit = probed["comment"].to_numpy(), sample.max_length(reads.steps)
    inputs = padded_comments(sample, vectors, chosen, reads.padding, limit)
    last = inputs.lengths.numpy() - 1
    at = last - probed["distance"].to_numpy()
    # no telling word comes earlier: up to there the forward pass is enough
    first = int(at.min())
    state = state_after(module, inputs.x[:, :first])
    x, b = inputs.x[:, first:], np.arange(len(chosen))
    gradient = x.new_zeros(*x.shape[:2], module.hidden_size)
    gradient[b, last - first] = head.weight.detach()
    curves = rnngrad.loss_gradient_curves(module, x, gradient, state)
    log10 = curves.log10_h if curves.log10_c is None else curves.log10_c
    return log10[b, at - first] - log10[b, last - first]
