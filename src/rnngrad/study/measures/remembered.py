"""How much is remembered of a telling word that lies so far back?

Only samples that know their telling words have such a distance; the others give empty tables.
"""

import numpy as np
import pandas as pd

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.study.measures.reach import loss_gradients
from rnngrad.study.runs import Run
from rnngrad.study.runs.open_model import Embedding, Opened, padded_comments, state_after

BINS = 5
CHOSEN = 4  # comments of each bin whose gradient is taken


def telling_comments(sample: TokenizedSample, run: Run) -> pd.DataFrame:
    """The toxic test comments whose last telling word is known and read.

    distance: words after it. bin: fifths of the distances, from 0; fewer where some are equal.
    """
    distance = sample.telling_distance
    read = distance < sample.max_length(run.steps)
    comments = np.flatnonzero(read & (sample.labels == 1) & (sample.splits == "test"))
    table = pd.DataFrame({"comment": comments, "distance": distance[comments].astype(np.int64)})
    # a single distance has no fifths: it is a bin of its own
    bins = pd.qcut(table["distance"], BINS, labels=False, duplicates="drop")
    return table.assign(bin=bins.fillna(0).astype(np.int64))


def remembered(model: Opened, embedding: Embedding, predictions: pd.DataFrame) -> pd.DataFrame:
    """A trained model's results on toxic comments, by the distance of the last telling word.

    ``predictions`` are its comment, label and probability of the test split. There is a row per
    bin, none where no distance is known. accuracy: share called toxic. auroc: share of pairs with
    a comment that is not toxic in the right order. log10_gradient: log10 of |d logit/d s| at the
    telling word over that at the end, median over some comments. s is c for an LSTM, else h.
    """
    telling = telling_comments(embedding[0], model.run)
    if telling.empty:
        return pd.DataFrame()
    # the comments nearest to the median distance of their bin
    off = telling["distance"] - telling.groupby("bin")["distance"].transform("median")
    nearest = telling.loc[off.abs().sort_values(kind="stable").index]
    chosen = nearest.groupby("bin").head(CHOSEN).sort_values("comment")
    inputs = padded_comments(model.run, embedding, chosen["comment"].to_numpy())
    at = inputs.lengths.numpy() - 1 - chosen["distance"].to_numpy()
    # no telling word comes earlier: up to there the forward pass is enough
    first = int(at.min())
    start = state_after(model.module, inputs.x[:, :first])
    late = inputs._replace(x=inputs.x[:, first:], lengths=inputs.lengths - first)
    log10 = loss_gradients(model._replace(inputs=late, start=start))[model.run.state]
    chosen["log10"] = log10[range(len(at)), at - first]
    read = telling.merge(predictions, on="comment")
    others = predictions.loc[predictions["label"] == 0, "probability"].to_numpy()
    # pairs with equal probabilities count as halves
    read["in_order"] = [np.heaviside(own - others, 0.5).mean() for own in read["probability"]]
    read["right"] = read["probability"] > 0.5
    table = read.groupby("bin").agg(
        distance_low=("distance", "min"),
        distance_median=("distance", "median"),
        distance_high=("distance", "max"),
        comments=("distance", "size"),
        accuracy=("right", "mean"),
        auroc=("in_order", "mean"),
    )
    table["log10_gradient"] = chosen.groupby("bin")["log10"].median()
    return table.reset_index()
