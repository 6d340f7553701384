"""A batch of comments of different lengths, without the steps in which a comment is only padded.

With padding in front a comment joins the batch at its first word, with the state that the padding
has led to; without padding it joins as late, with the zero state, so that all end together. With
unmasked padding behind there is nothing to leave out.
"""

import numpy as np
import torch
from torch import Tensor, nn

from rnngrad.data.batches import Batch
from rnngrad.models.prefix import states_after_padding
from rnngrad.models.recurrent import Rows, Steps, last_hidden_states_of_rows, steps_of


def last_hidden_states(module: nn.RNNBase, batch: Batch) -> Tensor:
    """(B, H): each comment's h after its step ``lengths``, from the zero state.

    Equal to running the module, which has one layer and ``batch_first=True``, over the whole batch
    with ``shared_prefix`` zeros in front.
    """
    steps = steps_of(module, len(batch.labels))
    return _padded(module, batch) if steps is None else _ragged(module, steps, batch)


def _padded(module: nn.RNNBase, batch: Batch) -> Tensor:
    """All comments from the longest one's first word: off the CPU, rows cost next to nothing."""
    B = len(batch.labels)
    after_prefix = states_after_padding(module, None, [batch.shared_prefix])
    h, *c = (s.expand(1, B, -1).contiguous() for s in after_prefix)
    hidden, _ = module(batch.inputs, (h, *c) if c else h)
    return hidden[torch.arange(B, device=hidden.device), batch.lengths - 1]


def _ragged(module: nn.RNNBase, steps: Steps, batch: Batch) -> Tensor:
    """Each comment from its own first word, the longest first."""
    counts = (batch.lengths - batch.starts).numpy()
    order = np.argsort(-counts, kind="stable")
    longest = int(counts.max())
    rows = Rows(np.searchsorted(longest - counts[order], np.arange(longest), side="right"))
    comment = order[rows.member]
    words = batch.words[comment, batch.lengths.numpy()[comment] - longest + rows.step]
    padded = (batch.shared_prefix + batch.starts[order]).tolist()
    hidden = last_hidden_states_of_rows(
        module, steps, rows, batch.vectors, words, states_after_padding(module, steps, padded)
    )
    return torch.empty_like(hidden).index_copy(0, torch.from_numpy(order), hidden)
