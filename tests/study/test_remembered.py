"""Telling words at known distances: which comments count, and the gradient against autograd."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from ready import opened
from torchmetrics.functional.classification import binary_auroc

from rnngrad.data.batches import CommentBatches
from rnngrad.data.tokenized import TokenizedSample
from rnngrad.models.classifier import RECURRENT, CommentClassifier
from rnngrad.study.measures.remembered import BINS, remembered, telling_comments
from tiny import make_run, make_sample, make_train_params

D = 3
LENGTHS = [9, 11, 7, 12, 8, 13, 6, 10, 9, 8, 7, 12]
DISTANCES = {1: 8, 3: 1, 5: 11, 7: 4, 11: 5}  # odd comments are toxic

Embedding = tuple[TokenizedSample, np.ndarray]


@pytest.fixture
def embedding() -> Embedding:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    distance = sample.telling_distance.copy()
    distance[list(DISTANCES)] = list(DISTANCES.values())
    distance[0] = 2  # not toxic
    return replace(sample, telling_distance=distance), vectors


def make_predictions(sample: TokenizedSample) -> pd.DataFrame:
    probability = np.random.default_rng(0).random(len(sample))
    return pd.DataFrame(
        {"comment": np.arange(len(sample)), "label": sample.labels, "probability": probability}
    )


def test_distances_end_where_the_state_is_read(embedding: Embedding) -> None:
    sample, _ = embedding
    for padding in ("pre", "none"):
        found = telling_comments(sample, make_run(padding=padding)).set_index("comment")
        assert found["distance"].to_dict() == DISTANCES
        assert sorted(found["bin"].unique()) == list(range(BINS))
        assert found["bin"].sort_values().index.tolist() == [3, 7, 11, 1, 5]
    # of a comment cut to its last eight words, one 8 words from the end is not read
    cut = telling_comments(sample, make_run(steps=8))
    assert cut["comment"].tolist() == [3, 7, 11]


@pytest.mark.parametrize("padding", ["pre", "none"])
@pytest.mark.parametrize("cell", list(RECURRENT))
def test_gradients_equal_autograds(cell: str, padding: str, embedding: Embedding) -> None:
    """d logit/d s_t by running the classifier up to t and from there on."""
    sample, vectors = embedding
    run = make_run(cell=cell, padding=padding)
    classifier = CommentClassifier(cell, D, make_train_params())
    predictions = make_predictions(sample)
    table = remembered(opened(run, classifier.recurrent, classifier.head), embedding, predictions)
    telling = telling_comments(sample, run).sort_values("distance")
    assert table["distance_median"].tolist() == telling["distance"].tolist()
    module, head = classifier.double().recurrent, classifier.head
    for (comment, distance), found in zip(
        telling[["comment", "distance"]].to_numpy(), table["log10_gradient"], strict=True
    ):
        batch = CommentBatches(sample, vectors, np.array([comment]), run.padding, 13)[[0]]
        padded = torch.zeros(1, batch.shared_prefix, D, dtype=torch.float64)
        x = torch.cat([padded, batch.inputs.double()], dim=1)
        last, norms = x.shape[1] - 1, []
        for t in (last - distance, last):
            state = module(x[:, : t + 1])[1]
            if isinstance(state, tuple):
                # h_t = o tanh(c_t): the total derivative by c_t has what comes through h_t
                h, s = (part.detach() for part in state)
                o = h / s.tanh()
                state = (o * s.requires_grad_().tanh(), s)
            else:
                state = s = state.detach().requires_grad_()
            hidden = state[0] if t == last else module(x[:, t + 1 :], state)[0][:, -1]
            (gradient,) = torch.autograd.grad(head(hidden).sum(), s)
            norms.append(gradient.norm().log10().item())
        assert found == pytest.approx(norms[0] - norms[1], abs=1e-4)


def test_a_single_distance_is_a_bin(embedding: Embedding) -> None:
    sample, _ = embedding
    same = np.where(sample.labels == 1, np.float32(3), np.float32(np.nan))
    found = telling_comments(replace(sample, telling_distance=same), make_run())
    assert found["bin"].tolist() == [0] * 6


def test_scores_per_bin(embedding: Embedding) -> None:
    sample, vectors = embedding
    # a sixth comment, at a distance that there is already
    distance = sample.telling_distance.copy()
    distance[9] = 5
    sample = replace(sample, telling_distance=distance)
    predictions = make_predictions(sample)
    classifier = CommentClassifier("rnn", D, make_train_params())
    run = make_run(cell="rnn")
    table = remembered(
        opened(run, classifier.recurrent, classifier.head), (sample, vectors), predictions
    )
    assert table["comments"].sum() == 6
    probability = predictions["probability"].to_numpy()
    telling = telling_comments(sample, run)
    for row in table.itertuples():
        toxic = telling.loc[telling["bin"] == row.bin, "comment"].to_numpy()
        assert row.accuracy == pytest.approx((probability[toxic] > 0.5).mean())
        chosen = np.concatenate([toxic, np.flatnonzero(sample.labels == 0)])
        auroc = binary_auroc(
            torch.from_numpy(probability[chosen]), torch.from_numpy(sample.labels[chosen]).long()
        )
        assert row.auroc == pytest.approx(auroc.item(), abs=1e-6)


def test_without_telling_words_there_is_nothing_to_tell() -> None:
    sample, vectors = make_sample(LENGTHS, ["test"], D)
    classifier = CommentClassifier("rnn", D, make_train_params())
    model = opened(make_run(), classifier.recurrent, classifier.head)
    table = remembered(model, (sample, vectors), make_predictions(sample))
    assert table.empty
