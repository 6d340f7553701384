"""The inputs of a condition's models: comments, a stream of them, nothing, or random tokens."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnngrad.data.tokenized import TokenizedSample
from rnngrad.params import ConditionsParams, Setting


class ConditionInputs(NamedTuple):
    """B examples of T steps.

    Attributes:
        inputs: (B, T, D) float32; D is cut to the units where the wrapper's slip is repeated.
        words: for each example the half-open range of steps (from 0) at which words are read.
    """

    inputs: Tensor
    words: list[range]


def condition_inputs(
    setting: Setting,
    padding: str,
    sample: TokenizedSample,
    vectors: NDArray[np.float32],
    conditions: ConditionsParams,
) -> ConditionInputs:
    """The examples of a setting, the same for every cell and weight seed.

    Args:
        setting: says what is read and how many steps there are.
        padding: ``pre``, ``post`` or ``none``; for trained models that of their training.
        sample: the tokenised comments; those of the test split are read.
        vectors: (V + 1, D) float32, row 0 zeros.
        conditions: how many examples, and the seed that says which.
    """
    T, comments = setting.steps, conditions.comments
    rng = np.random.default_rng(conditions.seed)
    if setting.input == "random_tokens":
        # Keras' Embedding before training: U(-0.05, 0.05)
        table = rng.uniform(-0.05, 0.05, vectors.shape).astype(np.float32)
        tokens = rng.integers(1, len(table), (comments, T))
        return _sliced(table[tokens], [range(T)] * comments, setting)
    if setting.input == "emptied_comments":
        # all of them are alike
        return _sliced(np.zeros((1, T, vectors.shape[1]), np.float32), [range(0)], setting)
    test = sample.indices_of("test")
    if padding == "none":
        streams = [
            np.resize(np.concatenate([sample.tokens_of(i) for i in rng.permutation(test)]), T)
            for _ in range(conditions.streams)
        ]
        return _sliced(vectors[np.stack(streams)], [range(T)] * len(streams), setting)
    chosen = np.sort(rng.choice(test, min(comments, len(test)), replace=False))
    tokens = np.zeros((len(chosen), T), dtype=np.int64)
    words = []
    for row, comment in zip(tokens, chosen, strict=True):
        read = sample.tokens_of(comment)[-T:]
        start = T - len(read) if padding == "pre" else 0
        row[start : start + len(read)] = read
        words.append(range(start, start + len(read)))
    return _sliced(vectors[tokens], words, setting)


def _sliced(inputs: NDArray[np.float32], words: list[range], setting: Setting) -> ConditionInputs:
    if setting.sliced_input:
        inputs = inputs[:, :, : setting.units]
    return ConditionInputs(torch.from_numpy(np.ascontiguousarray(inputs)), words)
