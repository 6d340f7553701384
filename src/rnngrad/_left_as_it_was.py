"""Run a model in eval mode, and put back whatever that changes of it."""

import operator
import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rnngrad.errors import InputError, check_memory

CONTAINERS = (dict, list, set, tuple, deque)
LARGEST = 1000  # entries of a list that are looked into; one that is longer holds data


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Set eval mode; put attributes, modes, tensors and random states back."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(map(is_lazy, tensors)):
        raise InputError("the model has lazy modules: run it once before")
    # copies of all, the float64 ones of recurrent weights, and what comparing the largest takes
    kept = sum(t.numel() * t.element_size() for t in tensors if t.device.type == "cpu")
    wide = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.RNNBase) for p in m.parameters()
    )
    check_memory(2 * kept + 24 * wide, "copies of the weights need", "use a smaller model")
    gpus = {p.device.index for p in model.parameters() if p.is_cuda}
    with ExitStack() as back, torch.random.fork_rng(devices=sorted(gpus)):
        # threads of a busy machine wait for each other: many small steps took 5 s in place of 0.02
        back.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        back.callback(random.setstate, random.getstate())
        back.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        waiting: list[Any] = [*tensors, *map(vars, model.modules())]
        found: dict[int, Any] = {}
        while waiting:  # attributes, and what lies in their lists and dicts
            own = waiting.pop()
            if isinstance(own, (Tensor, *CONTAINERS)) and id(own) not in found:
                found[id(own)] = own
                if isinstance(own, CONTAINERS):
                    back.callback(_refill, own, dict(own) if isinstance(own, dict) else [*own])
                    waiting += _entries(own) if len(own) <= LARGEST else []
                elif not is_lazy(own):
                    back.callback(_put_back, own, own.detach().clone())
        for parameter in model.parameters():  # a backward pass would add to what lies there
            back.callback(setattr, parameter, "grad", parameter.grad)
            parameter.grad = None
        for module in model.modules():  # TorchScript's modes are in no dict
            back.callback(setattr, module, "training", module.training)
            module.training = False
        yield


def _entries(own: Any) -> list[Any]:
    return [x for pair in own.items() for x in pair] if isinstance(own, dict) else [*own]


def _refill(own: Any, before: Any) -> None:
    """Put a list's or dict's entries back, if it has others: some refuse to be written to."""
    now, then = _entries(own), _entries(before)
    if len(now) != len(then) or not all(map(operator.is_, now, then)):
        own.clear()
        (own.extend if isinstance(own, list | deque) else own.update)(before)


def _put_back(tensor: Tensor, value: Tensor) -> None:
    with suppress(RuntimeError):  # sparse, nested and meta tensors cannot be compared
        if not torch.isclose(tensor, value, 0, 0, equal_nan=True).all():
            tensor.detach().copy_(value)
