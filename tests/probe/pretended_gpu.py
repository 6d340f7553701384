"""A GPU that is none: does the probe, and the classifier, find what they find on the CPU?

    python tests/probe/pretended_gpu.py rnn lstm gru [without-float64]

torch keeps a device type for others to implement. Here its tensors hold one on the CPU, which does
the work, and an operation refuses tensors of both devices as a GPU does. What runs through has no
tensor on the wrong device; how fast a GPU is, and how it rounds, stays open. The device cannot be
taken away again: this is for a process of its own. Without float64 it is like Apple's mps.
"""

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, library, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,  # pyright: ignore[reportPrivateUsage]
    _setup_privateuseone_for_python_backend,  # pyright: ignore[reportPrivateUsage]
)

import rnngrad

GPU = "pretended_gpu"
WITHOUT_FLOAT64 = "without-float64" in sys.argv
DTYPE = torch.float32 if WITHOUT_FLOAT64 else torch.float64
CPU = torch.device("cpu")
CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# These take tensors of both devices; those with indices take the indices alone from the CPU.
COPIES = {"aten::copy_", "aten::_to_copy"}
WITH_INDICES = {"aten::index", "aten::index_put_"}


class OnGpu(Tensor):
    """Says that it is on the pretended GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(GPU),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class GpuIsThere(TorchDispatchMode):
    """For the operations that make a tensor on the device from none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The CPU's result of an operation, on the device where it belongs."""
    leaves = pytree.tree_leaves((args, kwargs))
    there = [v for v in leaves if isinstance(v, OnGpu)]
    name = func._schema.name
    if there:
        check_devices(name, args, leaves)
    devices = [v.type for v in leaves if isinstance(v, torch.device)]
    held_args, held_kwargs = pytree.tree_map(held, (args, kwargs))
    out = func(*held_args, **held_kwargs)
    stays = devices[0] == GPU if devices else bool(there)
    if name == "aten::copy_":
        return args[0]
    if stays and WITHOUT_FLOAT64 and isinstance(out, Tensor) and out.dtype == torch.float64:
        raise TypeError("float64 tensors cannot be on this device")
    known = {id(v.held): v for v in there}

    def placed(v: Any) -> Any:
        # what an operation writes in place, or into out=, is the tensor that it was given
        if id(v) in known:
            return known[id(v)]
        return OnGpu(v) if stays and isinstance(v, Tensor) else v

    return pytree.tree_map(placed, out)


def held(v: Any) -> Any:
    if isinstance(v, torch.device):
        return CPU
    return v.held if isinstance(v, OnGpu) else v


def check_devices(name: str, args: Any, leaves: list[Any]) -> None:
    """A GPU takes numbers from the CPU, and indices; nothing else."""
    if name in COPIES:
        return
    if name in WITH_INDICES:
        leaves = [v for v in (args[0], *args[2:]) if isinstance(v, Tensor)]
    here = [v for v in leaves if isinstance(v, Tensor) and not isinstance(v, OnGpu) and v.dim()]
    if here:
        raise RuntimeError(f"{name}: tensors on two devices, {[tuple(v.shape) for v in here]}")


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _empty(size: Any, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return OnGpu(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return OnGpu(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    held(target).copy_(held(source))
    return target


def pretend() -> library.Library:
    """Make the device known to torch. What comes back has to be kept."""
    _setup_privateuseone_for_python_backend(GPU, Backend())
    kernels = library.Library("aten", "IMPL")
    # torch makes tensors of lists of indices without asking anyone else
    kernels.impl("empty.memory_format", _empty, "PrivateUse1")
    kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    return kernels


def on_gpu(module: nn.RNNBase) -> nn.RNNBase:
    moved = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        moved.register_parameter(name, nn.Parameter(OnGpu(parameter.detach().clone())))
    return moved


def probes(cell: str) -> dict[str, Callable[[nn.RNNBase, Tensor, Any], Any]]:
    """The functions to test on a module of two layers, inputs (4, 40, 5) and initial states."""
    state = "c" if cell == "lstm" else "h"
    paths = ("frobenius", "column_sum", "spectral", *(["hidden_path"] if cell == "lstm" else []))
    curves = rnngrad.jacobian_curves

    def gradients(m: nn.RNNBase, x: Tensor) -> Tensor:
        shape = *x.shape[:2], m.hidden_size
        return torch.linspace(-1, 1, math.prod(shape)).view(shape).to(x.device)

    found: dict[str, Callable[[nn.RNNBase, Tensor, Any], Any]] = {
        "curves": lambda m, x, s: curves(
            m, x, s, state=state, statistics=paths, spectral_steps=[1, 33, 40]
        ),
        "of all states": lambda m, x, s: curves(m, x, s, state="full", lengths=[40, 3, 31, 40]),
        "padded": lambda m, x, s: curves(m, padded(x), state=state, layer=0),
        "far apart": lambda m, x, s: curves(far_apart(m), x, s, statistics="frobenius"),
        "sketch": lambda m, x, s: curves(m, x, s, method="sketch"),
        "trajectory": rnngrad.trajectory,
        "exponents": rnngrad.lyapunov_exponents,
        "diagnosis": rnngrad.diagnose,
        "loss": lambda m, x, s: rnngrad.loss_gradient_curves(m, x, gradients(m, x), s),
        "weights": lambda m, x, s: rnngrad.weight_gradient_parts(m, x, gradients(m, x), s),
    }
    if cell == "rnn":  # the CPU lacks the kernels that torch's other cells have on a GPU
        found["classifier"] = lambda m, x, s: last_states(m, x)
    return found


def padded(x: Tensor) -> Tensor:
    """Zeros in front, and one example of nothing else."""
    begins = torch.tensor([30, 40, 0, 17], device=x.device)
    return x * (torch.arange(x.shape[1], device=x.device) >= begins[:, None]).unsqueeze(2)


def far_apart(module: nn.RNNBase) -> nn.RNNBase:
    """Half of the units hear the others by 1e-150 only: their rows need scales of their own."""
    with torch.no_grad():
        module.get_parameter("weight_hh_l1")[: module.hidden_size // 2] *= 1e-150
    return module


@torch.no_grad()  # torch's autograd does not know such a device
def last_states(module: nn.RNNBase, x: Tensor) -> list[np.ndarray]:
    """The last hidden states of a batch that begins with padding."""
    from rnngrad.data.batches import Batch
    from rnngrad.models.classifier import last_hidden_states

    B = len(x)
    batch = Batch(
        inputs=x,
        starts=torch.zeros(B, dtype=torch.int64, device=x.device),
        lengths=torch.tensor([40, 3, 31, 40], device=x.device),
        labels=torch.ones(B, device=x.device),
        shared_prefix=20,
    )
    return [last_hidden_states(module, batch).cpu().numpy()]


def numbers(result: Any) -> list[np.ndarray]:
    if isinstance(result, np.ndarray | list):
        return list(result)
    values = result if isinstance(result, dict) else vars(result)
    return [v for v in values.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]


def compare(cell: str) -> None:
    """Every probe of both devices."""
    torch.manual_seed(0)
    x, h = torch.randn(4, 40, 5).to(DTYPE), torch.rand(2, 4, 6).to(DTYPE)
    state: Any = (h, h + 1) if cell == "lstm" else h
    for name, probe in probes(cell).items():
        layers = 1 if name == "classifier" else 2
        module = CELLS[cell](5, 6, num_layers=layers, batch_first=True).to(DTYPE)
        expected = numbers(probe(copy.deepcopy(module), x, state))
        assert expected, name
        with GpuIsThere():
            state_there = pytree.tree_map(OnGpu, state)
            found = numbers(probe(on_gpu(module), OnGpu(x), state_there))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=name)


def refuses_two_devices() -> bool:
    with GpuIsThere():
        there = OnGpu(torch.ones(2))
        assert there.device.type == GPU
        assert torch.add(there, torch.ones(())).device.type == GPU
        assert torch.zeros(2, device=GPU).device.type == GPU
        try:
            torch.add(there, torch.ones(2))
        except RuntimeError:
            return True
    return False


if __name__ == "__main__":
    kept = pretend()
    assert refuses_two_devices()
    for name in filter(CELLS.get, sys.argv[1:]):
        compare(name)
